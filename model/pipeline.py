"""From photo to photo: holds what is loaded once, and anonymizes or swaps the faces of photo after photo.

The command line and the worker call in here, with photos that `model.photo` has read; `model.replace` treats
the faces of a photo and `model.anonymize` makes each of them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from model.anonymize import (
    DEFAULT_DEGREE,
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_STEPS,
    anonymize_face,
    swap_face,
)
from model.checkpoint import Checkpoint
from model.errors import AlignmentError
from model.faces.alignment import Pixels, align, crop_face
from model.faces.face import Box, Face
from model.faces.identity import FaceEmbedder
from model.photo import Photo, PhotoFormat, write_photo
from model.replace import (
    MAX_FACES,
    FaceOutcome,
    FaceStatus,
    Finder,
    MakeFace,
    OnFaceStep,
    ReplacedPhoto,
    largest_face,
    replace_faces,
)
from model.sampling import OnStep


class Faces(StrEnum):
    """Which faces of a photo are replaced."""

    ALL = "all"
    LARGEST = "largest"
    ALIGNED = "aligned"
    """The whole picture is one face, aligned as in FFHQ; the result has the model's resolution."""


@dataclass(frozen=True)
class Sampling:
    """How faces are made: steps 1 to 1000, guidance scale 0 to 20, seed 0 to 2^63-1."""

    seed: int
    steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE


@dataclass(frozen=True)
class Made:
    """A finished photo: its new pixels and faces, and what finding and making the faces took, in seconds."""

    photo: ReplacedPhoto
    detect_seconds: float
    sample_seconds: float


@dataclass(frozen=True)
class Pipeline:
    """Networks, finder and embedder, loaded once; runs one photo at a time."""

    checkpoint: Checkpoint
    finder: Finder
    embedder: FaceEmbedder

    def anonymize(
        self,
        pixels: Pixels,
        sampling: Sampling,
        *,
        faces: Faces = Faces.ALL,
        degree: float = DEFAULT_DEGREE,
        max_faces: int = MAX_FACES,
        on_step: OnFaceStep | None = None,
    ) -> Made:
        """Replace the chosen faces in a photo's uint8 sRGB pixels (height, width, 3) by others.

        Raises `ParameterError`, and `StoppedError` where `on_step` does.
        """

        def make_face(face: Image.Image, seed: int, on_face_step: OnStep) -> Image.Image:
            return anonymize_face(
                self.checkpoint,
                face,
                seed=seed,
                degree=degree,
                steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                on_step=on_face_step,
            )

        found, took = self._find(pixels, faces)
        return self._make(pixels, found, make_face, sampling.seed, faces, max_faces, on_step, took)

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
        identity = self._identity(source, found, faces)

        def make_face(face: Image.Image, seed: int, on_face_step: OnStep) -> Image.Image:
            return swap_face(
                self.checkpoint,
                identity,
                face,
                seed=seed,
                steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                on_step=on_face_step,
            )

        found, took_driving = self._find(driving, faces)
        return self._make(
            driving, found, make_face, sampling.seed, faces, max_faces, on_step, took + took_driving
        )

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
        return Image.fromarray(crop_face(source, align(face.landmarks), self.checkpoint.resolution))

    def _make(
        self,
        pixels: Pixels,
        found: Sequence[Face],
        make_face: MakeFace,
        seed: int,
        faces: Faces,
        max_faces: int,
        on_step: OnFaceStep | None,
        detect_seconds: float,
    ) -> Made:
        started = time.monotonic()
        if faces is Faces.ALIGNED:
            photo = self._make_aligned(pixels, make_face, seed, on_step)
        else:
            photo = replace_faces(
                pixels,
                found,
                make_face,
                only_largest=faces is Faces.LARGEST,
                seed=seed,
                resolution=self.checkpoint.resolution,
                embedder=self.embedder,
                max_faces=max_faces,
                on_step=on_step,
            )
        return Made(photo, detect_seconds, time.monotonic() - started)

    def _make_aligned(
        self, pixels: Pixels, make_face: MakeFace, seed: int, on_step: OnFaceStep | None
    ) -> ReplacedPhoto:
        def count(done: int, steps: int) -> None:
            if on_step:
                on_step(1, 1, done, steps)

        made = make_face(Image.fromarray(pixels), seed, count)
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
