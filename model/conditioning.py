"""Turns the two images of a run into what the UNet reads in every step: tokens, latents, states, and from
them keys and values. Comes after `model.checkpoint`, before `model.sampling`.

Source: Kung et al., "Face Anonymization Made Simple", WACV 2025, section 3 and equations 1 and 2.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Conditioning:
    """What the UNet reads in every step of one run; one row, or [unconditional, conditional]."""

    context: Tensor
    """The cross-attention context [source token, driving token]: (rows, 2, width)."""
    references: References


@torch.inference_mode()
def encode_image(checkpoint: Checkpoint, image: Image.Image) -> EncodedImage:
    """Resize an RGB image to the model's resolution (Lanczos) and encode it with CLIP and the VAE."""
    size = checkpoint.resolution
    resized = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    features = checkpoint.feature_extractor(images=resized, return_tensors="pt").pixel_values
    pooled = checkpoint.image_encoder(features.to(checkpoint.device, checkpoint.dtype)).pooler_output
    pixels = torch.from_numpy(np.array(resized)).to(checkpoint.device, checkpoint.vae.dtype)
    pixels = (pixels / 127.5 - 1.0).permute(2, 0, 1).unsqueeze(0)  # (1, 3, size, size) in -1..1
    posterior = encode(checkpoint.vae, pixels)
    dtype = checkpoint.latent_dtype
    return EncodedImage(pooled[:, None], posterior.mean.to(dtype), posterior.std.to(dtype))


def sample_posterior(checkpoint: Checkpoint, encoded: EncodedImage, noise: Tensor) -> Tensor:
    """Return scaled latents (1, channels, height, width) of an image, drawn with the given CPU noise."""
    scaling: float = checkpoint.vae.config.scaling_factor
    return (encoded.mean + encoded.std * noise.to(checkpoint.device)) * scaling


@torch.inference_mode()
def anonymize_conditioning(
    checkpoint: Checkpoint,
    image: EncodedImage,
    source_latents: Tensor,
    driving_latents: Tensor,
    *,
    degree: float,
    guided: bool,
) -> Conditioning:
    """Condition on one image as source and driving, moved away from its identity by `degree` (eq. 1, 2).

    The latents are two draws of the image's posterior. `guided` adds the unconditional row.
    """
    token = (1 - degree) * image.token  # eq. 1
    states = reference_states(checkpoint.referencenet, source_latents.to(checkpoint.dtype), token)
    states = {
        layer: (1 - degree) * state + degree * checkpoint.unconditional_states[layer]  # eq. 2
        for layer, state in states.items()
    }
    return _condition(checkpoint, token, states, image.token, driving_latents, guided=guided)


@torch.inference_mode()
def swap_conditioning(
    checkpoint: Checkpoint,
    source: EncodedImage,
    driving: EncodedImage,
    source_latents: Tensor,
    driving_latents: Tensor,
    *,
    guided: bool,
) -> Conditioning:
    """Condition on the source's identity and everything else of the driving image."""
    states = reference_states(checkpoint.referencenet, source_latents.to(checkpoint.dtype), source.token)
    return _condition(checkpoint, source.token, states, driving.token, driving_latents, guided=guided)


def _condition(
    checkpoint: Checkpoint,
    source_token: Tensor,
    source_states: States,
    driving_token: Tensor,
    driving_latents: Tensor,
    *,
    guided: bool,
) -> Conditioning:
    driving_states = reference_states(
        checkpoint.conditioning_referencenet, driving_latents.to(checkpoint.dtype), driving_token
    )
    source_tokens = source_token
    if guided:
        source_tokens = torch.cat([torch.zeros_like(source_token), source_token])
        source_states = {
            layer: torch.cat([checkpoint.unconditional_states[layer], state])
            for layer, state in source_states.items()
        }
    context = torch.cat([source_tokens, driving_token.expand_as(source_tokens)], dim=1)
    wiring = checkpoint.properties.wiring
    return Conditioning(
        context=context,
        references=project_references(checkpoint.unet, wiring, source_states, driving_states),
    )
