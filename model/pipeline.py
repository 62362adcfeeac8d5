"""From photo to photo: holds what is loaded once, and anonymizes or swaps the faces of any number of photos.

The command line and the worker call in here, with photos that `model.photo` has read; `model.replace` treats
the faces of a photo and `model.engine` makes them, along with those of other photos.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from model.engine import Engine
from model.errors import AlignmentError
from model.faces.alignment import Pixels, align, crop_face
from model.faces.face import Box, Face
from model.faces.identity import FaceEmbedder
from model.photo import Photo, PhotoFormat, write_photo
from model.replace import (
    MAX_FACES,
    BeginFace,
    FaceInMaking,
    FaceOutcome,
    FaceStatus,
    Finder,
    OnFaceStep,
    ReplacedPhoto,
    largest_face,
    replace_faces,
)
from model.task import FaceTask, OnStep, Sampler


class Faces(StrEnum):
    """Which faces of a photo are replaced."""

    ALL = "all"
    LARGEST = "largest"
    ALIGNED = "aligned"
    """The whole picture is one face, aligned as in FFHQ; the result has the model's resolution."""


@dataclass(frozen=True)
class Sampling:
    """How faces are made: steps 1 to 1000, guidance scale 0 to 20, seed 0 to 2^63-1.

    What is None is what the checkpoint is best used with; steps, with another sampler, are the usual ones.
    """

    seed: int
    steps: int | None = None
    guidance_scale: float | None = None
    sampler: Sampler | None = None


@dataclass(frozen=True)
class Made:
    """A finished photo: its new pixels and faces, and what finding and making the faces took, in seconds."""

    photo: ReplacedPhoto
    detect_seconds: float
    sample_seconds: float


@dataclass(frozen=True)
class Pipeline:
    """A running engine, finder and embedder, loaded once; any number of threads may run photos."""

    engine: Engine
    finder: Finder
    embedder: FaceEmbedder

    def anonymize(
        self,
        pixels: Pixels,
        sampling: Sampling,
        *,
        faces: Faces = Faces.ALL,
        degree: float | None = None,
        max_faces: int = MAX_FACES,
        on_step: OnFaceStep | None = None,
    ) -> Made:
        """Replace the chosen faces in a photo's uint8 sRGB pixels (height, width, 3) by others.

        Raises `ParameterError`, `StoppedError` where `on_step` does, and `DeviceError`.
        """
        found, took = self._find(pixels, faces)
        begin_face = self._beginning(None, sampling, degree)
        return self._make(pixels, found, begin_face, sampling.seed, faces, max_faces, on_step, took)

    def swap(
        self,
        source: Pixels,
        driving: Pixels,
        sampling: Sampling,
        *,
        faces: Faces = Faces.ALL,
        max_faces: int = MAX_FACES,
        on_step: OnFaceStep | None = None,
    ) -> Made:
        """Give the chosen faces of `driving` the identity of the largest face of `source`.

        Raises `NoFaceError` where the source has no face, `AlignmentError` where that cannot be aligned, and
        what `anonymize` raises.
        """
        found, took = self._find(source, faces)
        begin_face = self._beginning(self._identity(source, found, faces), sampling, None)
        found, took_driving = self._find(driving, faces)
        return self._make(
            driving, found, begin_face, sampling.seed, faces, max_faces, on_step, took + took_driving
        )

    def _beginning(self, source: Image.Image | None, sampling: Sampling, degree: float | None) -> BeginFace:
        """Return what hands the faces of one photo to the engine."""
        defaults = self.engine.checkpoint.properties.defaults
        sampler = sampling.sampler or defaults.sampler
        steps = defaults.steps_of(sampler) if sampling.steps is None else sampling.steps
        scale = defaults.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale
        degree = defaults.d if degree is None else degree
        job = uuid.uuid4().hex

        def begin_face(driving: Image.Image, seed: int, on_step: OnStep) -> FaceInMaking:
            task = FaceTask(driving, source, seed, degree, steps, scale, sampler)
            return self.engine.submit(task, job=job, on_step=on_step)

        return begin_face

    def _find(self, pixels: Pixels, faces: Faces) -> tuple[list[Face], float]:
        started = time.monotonic()
        found = [] if faces is Faces.ALIGNED else self.finder.find(pixels)
        return found, time.monotonic() - started

    def _identity(self, source: Pixels, found: Sequence[Face], faces: Faces) -> Image.Image:
        if faces is Faces.ALIGNED:
            return Image.fromarray(source)
        face = largest_face(found)
        if face.landmarks is None:
            raise AlignmentError("the largest face of the picture that gives the identity cannot be aligned")
        return Image.fromarray(crop_face(source, align(face.landmarks), self.engine.checkpoint.resolution))

    def _make(
        self,
        pixels: Pixels,
        found: Sequence[Face],
        begin_face: BeginFace,
        seed: int,
        faces: Faces,
        max_faces: int,
        on_step: OnFaceStep | None,
        detect_seconds: float,
    ) -> Made:
        started = time.monotonic()
        if faces is Faces.ALIGNED:
            photo = self._make_aligned(pixels, begin_face, seed, on_step)
        else:
            photo = replace_faces(
                pixels,
                found,
                begin_face,
                only_largest=faces is Faces.LARGEST,
                seed=seed,
                resolution=self.engine.checkpoint.resolution,
                embedder=self.embedder,
                max_faces=max_faces,
                on_step=on_step,
            )
        return Made(photo, detect_seconds, time.monotonic() - started)

    def _make_aligned(
        self, pixels: Pixels, begin_face: BeginFace, seed: int, on_step: OnFaceStep | None
    ) -> ReplacedPhoto:
        def count(done: int, steps: int) -> None:
            if on_step:
                on_step(1, 1, done, steps)

        making = begin_face(Image.fromarray(pixels), seed, count)
        try:
            made = making.result()
        except BaseException:
            making.cancel()
            raise
        whole = Face(Box(0, 0, made.width, made.height), score=1.0, landmarks=None)
        outcome = FaceOutcome(whole, FaceStatus.REPLACED, seed, identity_distance=None, warnings=())
        return ReplacedPhoto(np.asarray(made), (outcome,), left_alone=0)


def write_made(made: Made, photo: Photo, photo_format: PhotoFormat) -> bytes:
    """Return a finished photo as a file, with the alpha of the `photo` it was made from where that fits.

    It is marked as made by a model where a face was replaced. Raises what `write_photo` raises.
    """
    pixels = made.photo.pixels
    replaced = any(face.status is FaceStatus.REPLACED for face in made.photo.faces)
    alpha = photo.alpha if pixels.shape == photo.pixels.shape else None
    return write_photo(pixels, alpha, photo_format, synthetic=replaced)
