"""Portraits rendered ahead of training, in files that every run with the same seed shares.

The renderer comes before, and draws too slowly to feed a small network; `triplets` reads the files. A group
is n identities in n sets of attributes. Held-out groups have a seed of their own, so that no identity of
theirs is ever trained on.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import ParameterError
from model.renderer.groups import crossed
from model.renderer.parameters import Attributes, Identity, sample_attributes, sample_identities
from model.renderer.picture import landmarks, render

SHARD = 20  # groups in a file


@dataclass(frozen=True)
class Pool:
    """Groups of `side` identities by `side` attributes at `pixels` a side, the same for a `seed`."""

    folder: Path
    seed: int
    side: int
    pixels: int

    def group(self, index: int) -> NDArray[np.uint8]:
        """Return the portraits of a group, (side, side, pixels, pixels, 3): identities by attributes.

        Raises ParameterError where it has not been rendered.
        """
        file = self.file(index // SHARD)
        if not file.exists():
            raise ParameterError(f"{file}: group {index} has not been rendered")
        return np.asarray(np.load(file, mmap_mode="r")[index % SHARD])

    def identities(self, index: int) -> Identity:
        """Return who a group shows."""
        return sample_identities((self.seed, index, 0), self.side)

    def attributes(self, index: int) -> Attributes:
        """Return how a group shows them."""
        return framed(sample_attributes((self.seed, index, 1), self.side), (self.seed, index, 2))

    def eyes(self, index: int) -> NDArray[np.float32]:
        """Return where the two eyes of a group's portraits are, (side, side, 2, 2): x and y in pixels."""
        portraits = crossed(self.identities(index), self.attributes(index))
        return landmarks(*portraits, self.pixels)[:, :2].reshape(self.side, self.side, 2, 2)

    def file(self, shard: int) -> Path:
        """Return where a shard lies."""
        name = f"portraits-seed{self.seed}-{self.side}x{self.side}-{self.pixels}px"
        return self.folder / name / f"{shard:05}.npy"

    def render(self, groups: int, processes: int) -> int:
        """Render what lacks of the first `groups` groups; return how many portraits that were."""
        lacking = [shard for shard in range(-(-groups // SHARD)) if not self.file(shard).exists()]
        with ProcessPoolExecutor(processes) as executor:
            return sum(executor.map(partial(_render_shard, self), lacking))


def framed(attributes: Attributes, seed: int | tuple[int, ...]) -> Attributes:
    """Return attributes as an aligned crop shows them: moved and scaled as much as found landmarks err.

    The crops that the finder's landmarks give of 48 portraits were centred within 0.055 and 0.036 (standard
    deviation, in half crops), and scaled by 1.01 +- 0.05 (`model.faces.alignment`).
    """
    draw = np.random.default_rng(seed)

    def normal(spread: float) -> NDArray[np.float32]:
        values = np.clip(draw.standard_normal(len(attributes)), -2, 2)
        return np.asarray(spread * values, np.float32)

    return replace(
        attributes,
        x=attributes.x + normal(0.05),
        y=attributes.y + normal(0.035),
        scale=attributes.scale * np.exp(np.float32(0.01) + normal(0.05)),
    )


def _render_shard(pool: Pool, shard: int) -> int:
    groups = [
        render(*crossed(pool.identities(index), pool.attributes(index)), pool.pixels)
        for index in range(shard * SHARD, (shard + 1) * SHARD)
    ]
    shape = (SHARD, pool.side, pool.side, pool.pixels, pool.pixels, 3)
    file = pool.file(shard)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part.npy")
    np.save(unfinished, np.stack(groups).reshape(shape))
    unfinished.rename(file)
    return int(np.prod(shape[:3]))
