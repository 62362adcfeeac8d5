"""Where a run's triplets come from, behind one interface: `rendered` portraits or `listed` files."""

from pathlib import Path
from typing import Protocol

from torch import Generator

from model.training.config import Rendered, TrainingConfig
from model.training.listed import ListedSource
from model.training.noising import Triplets
from model.training.parts import Parts
from model.training.pool import Pool
from model.training.rendered import EncodedGroups


class Source(Protocol):
    """Gives the triplets of a step, the same for the same step and generator."""

    def triplets(self, step: int, generator: Generator) -> Triplets:
        """Return encoded triplets to train on."""

    def held_out(self, index: int) -> Triplets:
        """Return some of the triplets that are never trained on, others for each index."""


class RenderedSource:
    """Groups of the pool, all encoded at the start."""

    def __init__(self, data: Rendered, parts: Parts, kept: Path, processes: int) -> None:
        pools = [Pool(data.pool, seed, data.side, data.pixels) for seed in (data.seed, data.held_out_seed)]
        self.data = data
        encoded = []
        for pool, groups in zip(pools, (data.groups, data.held_out_groups), strict=True):
            pool.render(groups, processes)
            encoded.append(EncodedGroups.of(pool, groups, parts, kept, eyes=data.eyes))
        self.trained, self.kept = encoded

    def triplets(self, step: int, generator: Generator) -> Triplets:  # noqa: ARG002  no curriculum here
        """Return the rows of the step's groups."""
        return self.trained.triplets(
            self.data.groups_per_step, generator, same_picture=self.data.same_picture
        )

    def held_out(self, index: int) -> Triplets:
        """Return the rows of a held-out group."""
        return self.kept.group(index % len(self.kept.latents), Generator().manual_seed(index))


def source_of(config: TrainingConfig, parts: Parts, kept: Path, processes: int) -> Source:
    """Return where the run's triplets come from, rendered first where they lack."""
    if isinstance(config.data, Rendered):
        return RenderedSource(config.data, parts, kept, processes)
    return ListedSource(config.data, parts)
