"""Turns the two images of a face into what the UNet reads in every step: tokens, latents, states, and from
them keys and values. Comes after `model.checkpoint`, before `model.sampling`; takes several faces at once.

Source: Kung et al., "Face Anonymization Made Simple", WACV 2025, section 3 and equations 1 and 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.attention import References, States, project_references
from model.autoencoder import encode
from model.checkpoint import Checkpoint, reference_states


@dataclass(frozen=True)
class EncodedImage:
    """One image as the encoders see it."""

    token: Tensor
    """CLIP's pooled output: (1, 1, width of the cross-attention)."""
    mean: Tensor
    """Mean of the VAE's posterior, unscaled: (1, channels, height, width), in float32."""
    std: Tensor
    """Its standard deviation, the same shape."""


class Equations(StrEnum):
    """Which of the paper's equations move a face away from its identity; all but `BOTH` are its ablations."""

    BOTH = "both"
    FIRST = "token only"
    """Eq. 1 alone: the states are those of the moved token."""
    SECOND = "states only"
    """Eq. 2 alone, with the image's own token."""
    WITHOUT_UNCONDITIONAL = "without the unconditional part"
    """Eq. 1, and of eq. 2 the first part only."""


@dataclass(frozen=True)
class FaceInputs:
    """What the conditioning of one face is made from, the same each time; `degree` is 0 for a swap."""

    source_token: Tensor
    """CLIP's token of the source image: (1, 1, width of the cross-attention)."""
    driving_token: Tensor
    source_latents: Tensor
    """A draw of the source image's posterior, scaled: (1, channels, height, width)."""
    driving_latents: Tensor
    degree: float
    guided: bool
    """Whether there is an unconditional row before the conditional one."""
    equations: Equations = Equations.BOTH

    @property
    def rows(self) -> int:
        """How many rows of the UNet's batch the face takes."""
        return 2 if self.guided else 1


@dataclass(frozen=True)
class Conditioning:
    """What the UNet reads in a step, row by row; a guided face has two, [unconditional, conditional]."""

    context: Tensor
    """The cross-attention context [source token, driving token]: (rows, 2, width)."""
    references: References


@torch.inference_mode()
def encode_images(checkpoint: Checkpoint, images: Sequence[Image.Image]) -> list[EncodedImage]:
    """Resize RGB images to the model's resolution (Lanczos) and encode them at once with CLIP and the VAE."""
    size = checkpoint.resolution
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS) for image in images]
    features = checkpoint.feature_extractor(images=resized, return_tensors="pt").pixel_values
    pooled = checkpoint.image_encoder(features.to(checkpoint.device, checkpoint.dtype)).pooler_output
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    pixels = stacked.to(checkpoint.device, checkpoint.vae.dtype) / 127.5 - 1.0
    pixels = pixels.permute(0, 3, 1, 2)  # (images, 3, size, size) in -1..1
    posterior = encode(checkpoint.vae, pixels)
    dtype = checkpoint.latent_dtype
    parts = (pooled[:, None], posterior.mean.to(dtype), posterior.std.to(dtype))
    return [EncodedImage(*rows) for rows in zip(*(part.split(1) for part in parts), strict=True)]


def sample_posterior(checkpoint: Checkpoint, encoded: EncodedImage, noise: Tensor) -> Tensor:
    """Return scaled latents (1, channels, height, width) of an image, drawn with the given CPU noise."""
    scaling: float = checkpoint.vae.config.scaling_factor
    return (encoded.mean + encoded.std * noise.to(checkpoint.device)) * scaling


@torch.inference_mode()
def condition(
    checkpoint: Checkpoint, faces: Sequence[FaceInputs], into: References | None = None
) -> Conditioning:
    """Run both ReferenceNets once for all `faces` and return the conditioning of all their rows, in order.

    The source's token and states are moved away from its identity by the face's degree (eq. 1, 2). The
    references go `into` the room given for them, or into new one.
    """
    unconditional = checkpoint.unconditional_states
    tokens = [_source_token(face) for face in faces]
    conditional = _states(checkpoint.referencenet, [face.source_latents for face in faces], tokens)
    source = {
        layer: torch.cat(list(_source_rows(faces, states, unconditional[layer])))
        for layer, states in conditional.items()
    }
    driving = _states(
        checkpoint.conditioning_referencenet,
        [face.driving_latents for face in faces],
        [face.driving_token for face in faces],
    )
    if len(faces) > 1:  # otherwise all rows share the one
        owners = torch.tensor([index for index, face in enumerate(faces) for _ in range(face.rows)])
        driving = {layer: states[owners.to(states.device)] for layer, states in driving.items()}
    return Conditioning(
        context=torch.cat([_context(face, token) for face, token in zip(faces, tokens, strict=True)]),
        references=project_references(
            checkpoint.unet, checkpoint.properties.wiring, source, driving, into=into
        ),
    )


def _states(referencenet: torch.nn.Module, latents: Sequence[Tensor], tokens: Sequence[Tensor]) -> States:
    joined = torch.cat(list(tokens))
    return reference_states(referencenet, torch.cat(list(latents)).to(joined.dtype), joined)


def _source_rows(faces: Sequence[FaceInputs], states: Tensor, unconditional: Tensor) -> list[Tensor]:
    rows = []
    for index, face in enumerate(faces):
        if face.guided:
            rows.append(unconditional)
        rows.append(_moved(face, states[index : index + 1], unconditional))
    return rows


def _source_token(face: FaceInputs) -> Tensor:
    if face.equations is Equations.SECOND:
        return face.source_token
    return (1 - face.degree) * face.source_token  # eq. 1


def _moved(face: FaceInputs, state: Tensor, unconditional: Tensor) -> Tensor:
    match face.equations:
        case Equations.FIRST:
            return state
        case Equations.WITHOUT_UNCONDITIONAL:
            return (1 - face.degree) * state
        case Equations.BOTH | Equations.SECOND:
            return (1 - face.degree) * state + face.degree * unconditional  # eq. 2


def _context(face: FaceInputs, source_token: Tensor) -> Tensor:
    rows = [source_token]
    if face.guided:
        rows.insert(0, torch.zeros_like(source_token))
    return torch.cat([torch.cat(rows), face.driving_token.expand(len(rows), -1, -1)], dim=1)
