"""The faces that are denoised together, each in rows of its own of the UNet's batch: join, leave, step.

`model.engine` decides who joins; everything about the networks' tensors is here. Buffers for latents,
contexts, keys and values are allocated once. Live rows are kept together at their beginning, so that a step
passes views of them: a row moves only when one before it leaves.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from PIL import Image
from torch import Generator, Tensor

from model.attention import allocate_references, move_reference_row, narrow_references
from model.checkpoint import Checkpoint
from model.conditioning import (
    Conditioning,
    EncodedImage,
    FaceInputs,
    condition,
    encode_images,
    sample_posterior,
)
from model.device import synchronize
from model.samplers import FaceSampler
from model.sampling import decode_faces, draw_noise, guide, predict
from model.task import FaceTask


@dataclass(eq=False)
class Denoising:
    """A face between two steps; outside of a batch it has no rows, and it can join another and go on."""

    task: FaceTask
    inputs: FaceInputs
    sampler: FaceSampler
    latents: Tensor
    """(1, channels, height, width), float32 at least."""
    rows: list[int] = field(default_factory=list)
    """Where in the batch it is: [conditional], or [unconditional, conditional]."""


def begin_faces(checkpoint: Checkpoint, tasks: Sequence[FaceTask], together: int) -> list[Denoising]:
    """Encode the images of `tasks`, at most `together` at once, and draw what comes before the first step."""
    images = [image for task in tasks for image in _images(task)]
    encoded: list[EncodedImage] = []
    for first in range(0, len(images), together):
        encoded += encode_images(checkpoint, images[first : first + together])
    parts = iter(encoded)
    return [_begin(checkpoint, task, [next(parts) for _ in _images(task)]) for task in tasks]


def finish_faces(checkpoint: Checkpoint, faces: Sequence[Denoising]) -> list[Image.Image]:
    """Decode the latents of faces at once."""
    return decode_faces(checkpoint, torch.cat([face.latents for face in faces]))


def _images(task: FaceTask) -> list[Image.Image]:
    return [task.driving] if task.source is None else [task.source, task.driving]


def _begin(checkpoint: Checkpoint, task: FaceTask, encoded: Sequence[EncodedImage]) -> Denoising:
    source, driving = encoded[0], encoded[-1]
    generator = Generator().manual_seed(task.seed)
    noise = draw_noise(checkpoint, generator)
    inputs = FaceInputs(
        source_token=source.token,
        driving_token=driving.token,
        source_latents=sample_posterior(checkpoint, source, noise.source_posterior),
        driving_latents=sample_posterior(checkpoint, driving, noise.driving_posterior),
        degree=0 if task.source else task.degree,
        guided=task.guided,
    )
    sampler = FaceSampler(checkpoint.scheduler, task.sampler, task.steps, generator)
    initial = noise.initial.to(checkpoint.device, checkpoint.latent_dtype)
    return Denoising(task, inputs, sampler, sampler.begin(initial))


class Batch:
    """Up to `slots` faces of one checkpoint. Belongs to one thread.

    A UNet call takes at most `rows_per_call` rows, or all; of one row each, results do not depend on who else
    is in the batch, not even in the last bit.
    """

    def __init__(self, checkpoint: Checkpoint, slots: int, rows_per_call: int | None = None) -> None:
        self._checkpoint = checkpoint
        self.slots = slots
        self.rows_per_call = rows_per_call
        self.faces: list[Denoising] = []
        self.unet_seconds = 0.0
        rows = 2 * slots
        width = checkpoint.unet.config.cross_attention_dim
        _, *shape = checkpoint.latent_shape
        empty = partial(torch.empty, dtype=checkpoint.dtype, device=checkpoint.device)
        self._owners: list[Denoising] = []
        self._latents = empty((rows, *shape)).contiguous(memory_format=torch.channels_last)
        self._context = empty((rows, 2, width))
        self._timesteps = torch.empty(rows, dtype=torch.long, device=checkpoint.device)
        self._references = allocate_references(
            checkpoint.unet, checkpoint.properties.wiring, checkpoint.unconditional_states, rows
        )

    @property
    def rows(self) -> int:
        """How many rows are live."""
        return len(self._owners)

    @torch.inference_mode()
    def join(self, newcomers: Sequence[Denoising]) -> None:
        """Let faces in, new ones or such that left before their last step; an error leaves all as it was."""
        owners = [face for face in newcomers for _ in range(face.inputs.rows)]
        first, last = self.rows, self.rows + len(owners)
        conditioning = condition(
            self._checkpoint,
            [face.inputs for face in newcomers],
            into=narrow_references(self._references, first, last),
        )
        self._context[first:last] = conditioning.context
        self._owners += owners
        self.faces += newcomers
        for row, face in enumerate(owners, start=first):
            face.rows.append(row)

    @torch.inference_mode()
    def leave(self, face: Denoising) -> None:
        """Let a face go and close the gap with the last rows."""
        for hole in sorted(face.rows):
            while self._owners and self._owners[-1] is face:
                self._owners.pop()
            if hole < self.rows:
                self._move_last_row(hole)
        self.faces.remove(face)
        face.rows.clear()

    def _move_last_row(self, to: int) -> None:
        row = self.rows - 1
        owner = self._owners.pop()
        self._owners[to] = owner
        owner.rows[owner.rows.index(row)] = to
        self._context[to] = self._context[row]
        move_reference_row(self._references, row, to)

    @torch.inference_mode()
    def step(self) -> None:
        """Advance every face by a step; where a UNet call fails, none has advanced."""
        v = self._predict()
        for face in self.faces:
            rows = [v[row : row + 1] for row in face.rows]
            face.latents = face.sampler.advance(guide(rows, face.task.guidance_scale), face.latents)

    def _predict(self) -> Tensor:
        for row, face in enumerate(self._owners):
            self._latents[row] = face.latents[0]
        self._timesteps[: self.rows] = torch.tensor([face.sampler.timestep for face in self._owners])
        begun = time.perf_counter()
        v = [
            predict(
                self._checkpoint,
                Conditioning(self._context[first:last], narrow_references(self._references, first, last)),
                self._latents[first:last],
                self._timesteps[first:last],
            )
            for first, last in self._calls()
        ]
        synchronize(self._checkpoint.device)
        self.unet_seconds += time.perf_counter() - begun
        return v[0] if len(v) == 1 else torch.cat(v)

    def _calls(self) -> Iterator[tuple[int, int]]:
        size = self.rows_per_call or self.rows
        for first in range(0, self.rows, size):
            yield first, min(first + size, self.rows)
