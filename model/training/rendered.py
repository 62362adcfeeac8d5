"""Triplets of rendered portraits, encoded once.

The pool comes before. From a group of n identities by n attributes n portraits are taken, no two of one
identity or in the same attributes. Each is source and driving picture: the n x n pairs are n^2 rows, of 2 n
passes through a ReferenceNet, and every truth is in the group. In n of the rows source and driving are one
picture, which is what anonymization asks for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from model.training.noising import Triplets
from model.training.parts import Parts
from model.training.pool import Pool


@dataclass(frozen=True)
class EncodedGroups:
    """Latents (groups, n, n, channels, height, width), tokens (groups, n, n, width), and what an error counts
    in each latent (groups, n, n, height, width).
    """

    latents: Tensor
    tokens: Tensor
    emphasis: Tensor

    @classmethod
    def of(cls, pool: Pool, groups: int, parts: Parts, kept: Path, *, eyes: float) -> "EncodedGroups":
        """Encode the first groups of a pool, or read what was encoded into the folder `kept` before.

        An error counts `eyes` where there are eyes, and 1 elsewhere.
        """
        file = kept / f"groups-{groups}-seed{pool.seed}.safetensors"
        if not file.exists():
            save_file(cls._encode(pool, groups, parts), file)
        encoded = load_file(file)
        return cls(encoded["latents"], encoded["tokens"], torch.where(encoded["eyes"], eyes, 1.0))

    @staticmethod
    def _encode(pool: Pool, groups: int, parts: Parts) -> dict[str, Tensor]:
        encoded = []
        for index in range(groups):
            portraits = pool.group(index)
            encoded.append(parts.encode(portraits.reshape(-1, *portraits.shape[2:]), None))
        shape = (groups, pool.side, pool.side)
        latents, tokens = (torch.stack(each).cpu() for each in zip(*encoded, strict=True))
        places = torch.from_numpy(np.stack([pool.eyes(index) for index in range(groups)]))
        return {
            "latents": latents.view(*shape, *latents.shape[2:]).contiguous(),
            "tokens": tokens.view(*shape, -1).contiguous(),
            "eyes": eyes_seen(places, pool.pixels, *latents.shape[-2:]),
        }

    def triplets(self, groups: int, generator: Generator, *, same_picture: bool) -> Triplets:
        """Return the rows of so many groups drawn, with or without those that show one picture."""
        return joined(
            [
                self.group(
                    int(torch.randint(len(self.latents), (), generator=generator)),
                    generator,
                    same_picture=same_picture,
                )
                for _ in range(groups)
            ]
        )

    def group(self, index: int, generator: Generator, *, same_picture: bool = True) -> Triplets:
        """Return all n^2 rows of a group, its n pictures drawn, or only those whose two pictures differ."""
        latents, tokens = self.latents[index], self.tokens[index]
        side = len(latents)
        identity, attributes = torch.arange(side), torch.randperm(side, generator=generator)
        pictures, their_tokens = latents[identity, attributes], tokens[identity, attributes]
        source, driving = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
        if not same_picture:
            source, driving = source[source != driving], driving[source != driving]
        return Triplets(
            source_latents=pictures,
            source_tokens=their_tokens,
            driving_latents=pictures,
            driving_tokens=their_tokens,
            source_row=source,
            driving_row=driving,
            truth=latents[identity[source], attributes[driving]],
            same_picture=source == driving,
            emphasis=self.emphasis[index][identity[source], attributes[driving]],
        )


def joined(parts: list[Triplets]) -> Triplets:
    """Return the rows of several triplets, which go on reading their own pictures."""
    sources = [0, *torch.tensor([len(part.source_latents) for part in parts]).cumsum(0).tolist()]
    drivings = [0, *torch.tensor([len(part.driving_latents) for part in parts]).cumsum(0).tolist()]
    return Triplets(
        source_latents=torch.cat([part.source_latents for part in parts]),
        source_tokens=torch.cat([part.source_tokens for part in parts]),
        driving_latents=torch.cat([part.driving_latents for part in parts]),
        driving_tokens=torch.cat([part.driving_tokens for part in parts]),
        source_row=torch.cat([part.source_row + sources[i] for i, part in enumerate(parts)]),
        driving_row=torch.cat([part.driving_row + drivings[i] for i, part in enumerate(parts)]),
        truth=torch.cat([part.truth for part in parts]),
        same_picture=torch.cat([part.same_picture for part in parts]),
        emphasis=torch.cat([part.emphasis for part in parts]),
    )


def eyes_seen(eyes: Tensor, pixels: int, height: int, width: int) -> Tensor:
    """Return which latents (..., height, width) show one of the eyes (..., eyes, 2).

    Eyes are x and y in a picture of `pixels` a side; an eye's half width is a sixteenth of that.
    """
    x = torch.arange(width) * pixels / width
    y = torch.arange(height) * pixels / height
    # From an eye's middle to the nearest place that a latent shows.
    across = (eyes[..., 0, None] - eyes[..., 0, None].clamp(x, x + pixels / width))[..., None, :]
    down = (eyes[..., 1, None] - eyes[..., 1, None].clamp(y, y + pixels / height))[..., None]
    return (torch.hypot(across, down) < pixels / 16).any(dim=-3)
