"""What is evaluated: something that makes faces of portraits, in batches. `CheckpointMaker` is a checkpoint.

The engine's batch (`model.engine_batch`) comes before, without its thread and its queue; the experiments
(`experiments.py`) come after. Tests evaluate renderers and copies in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from model.checkpoint import Checkpoint
from model.conditioning import Equations, encode_images
from model.engine_batch import Batch, begin_faces, finish_faces
from model.evaluation.portraits import Pixels, Portraits
from model.sampling import decode_faces
from model.task import FaceTask, Sampler

SLOTS = 16


@dataclass(frozen=True)
class How:
    """How faces are made: the sampler, its steps, the guidance scale, and the equations of the degree."""

    sampler: Sampler
    steps: int
    guidance_scale: float
    equations: Equations = Equations.BOTH

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps, guidance {self.guidance_scale:g}"


class FaceMaker(Protocol):
    """Makes faces of portraits, uint8 (n, size, size, 3), with a seed for each."""

    def anonymize(self, portraits: Portraits, seeds: Sequence[int], degree: float, how: How) -> Pixels:
        """Return another face for each portrait, at a distance of `degree` from its identity."""

    def swap(self, sources: Portraits, drivings: Portraits, seeds: Sequence[int], how: How) -> Pixels:
        """Return the identity of each source with everything else of the driving portrait."""

    def reconstruct(self, portraits: Portraits) -> Pixels:
        """Return the portraits as latents hold them: no made face is nearer to the truth than that."""


@dataclass(frozen=True)
class CheckpointMaker:
    """A checkpoint, which sees the portraits' pictures and none of their parameters."""

    checkpoint: Checkpoint
    slots: int = SLOTS

    def anonymize(self, portraits: Portraits, seeds: Sequence[int], degree: float, how: How) -> Pixels:
        """Return another face for each portrait; raises what `FaceTask` raises."""
        return self._make(
            [
                FaceTask(
                    Image.fromarray(picture), None, seed, degree, how.steps, how.guidance_scale, how.sampler
                )
                for picture, seed in zip(portraits.pictures, seeds, strict=True)
            ],
            how.equations,
        )

    def swap(self, sources: Portraits, drivings: Portraits, seeds: Sequence[int], how: How) -> Pixels:
        """Return swapped faces; raises what `FaceTask` raises."""
        pairs = zip(sources.pictures, drivings.pictures, seeds, strict=True)
        return self._make(
            [
                FaceTask(
                    Image.fromarray(driving), Image.fromarray(source), seed, 0, how.steps, how.guidance_scale,
                    how.sampler,
                )
                for source, driving, seed in pairs
            ],
            how.equations,
        )  # fmt: skip

    def reconstruct(self, portraits: Portraits) -> Pixels:
        """Encode and decode the portraits."""
        made: list[Image.Image] = []
        for first in range(0, len(portraits), self.slots):
            pictures = portraits.pictures[first : first + self.slots]
            encoded = encode_images(self.checkpoint, [Image.fromarray(picture) for picture in pictures])
            latents = torch.cat([each.mean for each in encoded])
            made += decode_faces(self.checkpoint, latents * self.checkpoint.vae.config.scaling_factor)
        return np.stack([np.asarray(face) for face in made])

    def _make(self, tasks: Sequence[FaceTask], equations: Equations) -> Pixels:
        made: list[Image.Image] = []
        for first in range(0, len(tasks), self.slots):
            faces = begin_faces(self.checkpoint, tasks[first : first + self.slots], self.slots)
            for face in faces:
                face.inputs = replace(face.inputs, equations=equations)
            batch = Batch(self.checkpoint, len(faces))
            batch.join(faces)
            while not faces[0].sampler.finished:  # all take the same number of steps
                batch.step()
            made += finish_faces(self.checkpoint, faces)
        return np.stack([np.asarray(face) for face in made])
