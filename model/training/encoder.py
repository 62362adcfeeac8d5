"""The image encoder: a small stock `CLIPVisionModel`, trained to tell identities apart and to read
parameters.

Rendered portraits, whose true parameters are known, come before; its `pooler_output` is the token that the
three networks attend to. Its token says who is shown, and how: the UNet takes one from the source, the other
from the driving picture.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from model.renderer.parameters import Batch

# Angles cannot be regressed, and the shirt is hardly seen.
UNREAD = ("background_angle", "shirt")
# What is not seen is not asked for.
SEEN_WITH = {
    **dict.fromkeys(("glasses_size", "glasses_round", "glasses_colour"), "glasses"),
    **dict.fromkeys(
        ("hair_colour", "hair_length", "hair_volume", "hair_line", "hair_part", "hair_curl"), "hair"
    ),
    **dict.fromkeys(("gaze_x", "gaze_y"), "eyes_open"),
}
SEEN_FROM = 0.2
TEMPERATURE = 0.1
CONTRAST_WIDTH = 64


@dataclass(frozen=True)
class Truth:
    """What a portrait's parameters are, (n, k), and which of them can be seen, (n, k) of 0 and 1."""

    values: NDArray[np.float32]
    seen: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: list["Truth"]) -> "Truth":
        """Return the rows of several, one after the other."""
        return cls(
            np.concatenate([part.values for part in parts]), np.concatenate([part.seen for part in parts])
        )


def truth_of(parameters: Batch) -> Truth:
    """Return the parameters of portraits side by side."""
    arrays = parameters.arrays()
    values, seen = [], []
    for name, array in arrays.items():
        if name in UNREAD:
            continue
        columns = array.reshape(len(array), -1)
        values.append(columns)
        shown = arrays[SEEN_WITH[name]] > SEEN_FROM if name in SEEN_WITH else np.ones(len(array))
        seen.append(np.broadcast_to(np.asarray(shown, np.float32)[:, None], columns.shape))
    return Truth(
        np.concatenate(values, axis=1, dtype=np.float32), np.concatenate(seen, axis=1, dtype=np.float32)
    )


class Reader(nn.Module):
    """The encoder and what trains it: heads that read the parameters of both kinds, and the contrast."""

    def __init__(self, config: dict[str, Any], identity: Truth, attributes: Truth) -> None:
        super().__init__()
        self.encoder = CLIPVisionModel(CLIPVisionConfig(**config))
        width = self.encoder.config.hidden_size
        self.read = nn.Linear(width, identity.values.shape[1] + attributes.values.shape[1])
        self.contrast = nn.Linear(width, CONTRAST_WIDTH)
        for part, known in (("identity", identity), ("attributes", attributes)):
            weight = known.seen.sum(axis=0)
            mean = (known.values * known.seen).sum(axis=0) / weight
            spread = np.sqrt((((known.values - mean) * known.seen) ** 2).sum(axis=0) / weight)
            self.register_buffer(f"{part}_mean", torch.from_numpy(mean))
            self.register_buffer(f"{part}_spread", torch.from_numpy(spread))
        self.split = identity.values.shape[1]

    def forward(self, portraits: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (n, width) and read parameters (n, k), standardized, of uint8 (n, h, w, 3)."""
        token = self.encoder(normalized(portraits)).pooler_output
        return token, self.read(token)

    def loss(self, portraits: Tensor, identity: Truth, attributes: Truth) -> tuple[Tensor, Tensor]:
        """Return the two losses, regression and contrast, on one group (identities, attributes, h, w, 3)."""
        rows, columns = portraits.shape[:2]
        token, read = self(portraits.flatten(0, 1))
        read = read.view(rows, columns, -1)
        errors, weights = [], []
        for part, known, guess in (
            ("identity", identity, read[..., : self.split]),
            ("attributes", attributes, read[..., self.split :]),
        ):
            mean, spread = getattr(self, f"{part}_mean"), getattr(self, f"{part}_spread")
            wanted = (torch.from_numpy(known.values) - mean) / spread
            seen = torch.from_numpy(known.seen)
            along = 1 if part == "identity" else 0  # a row is an identity, a column a set of attributes
            errors.append(((guess - wanted.unsqueeze(along)) ** 2 * seen.unsqueeze(along)).mean(dim=(0, 1)))
            weights.append(seen.mean())
        regression = torch.cat(errors).mean()
        marks = functional.normalize(self.contrast(token), dim=1)
        return regression, contrast_loss(marks, torch.arange(rows).repeat_interleave(columns))


def contrast_loss(marks: Tensor, labels: Tensor) -> Tensor:
    """Return the supervised contrastive loss of unit marks (n, k) (Khosla et al., NeurIPS 2020, eq. 2)."""
    itself = torch.eye(len(marks), dtype=torch.bool)
    logits = (marks @ marks.T / TEMPERATURE).masked_fill(itself, -1e9)
    same = (labels[:, None] == labels[None, :]) & ~itself
    return -(logits.log_softmax(dim=1) * same).sum() / same.sum()


def normalized(portraits: Tensor) -> Tensor:
    """Return uint8 portraits (n, h, w, 3) as `CLIPImageProcessor` makes them, (n, 3, h, w)."""
    mean, deviation = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    return ((portraits.float() / 255 - mean) / deviation).movedim(-1, 1)


@torch.no_grad()
def standardize(encoder: CLIPVisionModel, portraits: Tensor) -> None:
    """Give the token zero mean and unit variance in each channel over portraits (n, h, w, 3), for good.

    The last layer is a normalization, whose scale and shift do it. Zero, which eq. 1 goes through, becomes
    the average face.
    """
    tokens = torch.cat([encoder(normalized(some)).pooler_output for some in torch.split(portraits, 256)])
    mean, deviation = tokens.mean(dim=0), tokens.std(dim=0)
    last = (
        encoder.post_layernorm if hasattr(encoder, "post_layernorm") else encoder.vision_model.post_layernorm
    )
    last.weight.div_(deviation)
    last.bias.sub_(mean).div_(deviation)
