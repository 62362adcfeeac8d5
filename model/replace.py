"""Replaces the faces of a whole photo: align, have another face made of each, paste back, cover what could
not be replaced, compare identities. Between `model.photo`, which reads and writes, and `model.engine`, which
makes all of its aligned faces at once.

No face that was found leaves as it was: it is replaced, or it is covered and reported.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
from PIL import Image

from model.errors import AlignmentError, DeviceError, NoFaceError, StoppedError
from model.faces.alignment import Pixels, Quad, align, crop_face
from model.faces.face import Face
from model.faces.identity import FaceEmbedder
from model.faces.pasting import Replacement, paste_faces
from model.faces.redaction import cover_faces
from model.task import MAX_SEED, OnStep

log = logging.getLogger("face_anon.model")

MAX_FACES = 32


class FaceInMaking(Protocol):
    """Another face that is being made, as `model.engine.FaceRun`."""

    def result(self) -> Image.Image:
        """Wait for the face; raises what it failed with, or what its `on_step` raised."""

    def cancel(self) -> None:
        """Let it end with `StoppedError` before its next step."""


BeginFace = Callable[[Image.Image, int, OnStep], FaceInMaking]
"""Begins to make another face of an aligned crop (RGB, square) with a seed, calling back at each step."""

OnFaceStep = Callable[[int, int, int, int], None]
"""Called with (face, faces, steps done, steps), the face counted from 1.

The faces of a photo are made at the same time; this counts the steps of all as if one were made after the
other, so that it only grows and ends with (faces, faces, steps, steps). Raise `StoppedError` to stop the
photo. It is called in the engine's thread, and must return at once.
"""


class Finder(Protocol):
    """Finds the faces in a photo's pixels, in reading order."""

    def find(self, pixels: Pixels) -> list[Face]:
        """Return every face in uint8 sRGB pixels (height, width, 3)."""


class FaceStatus(StrEnum):
    """What became of a face."""

    REPLACED = "replaced"
    REDACTED = "redacted"


@dataclass(frozen=True)
class FaceOutcome:
    """One face of the photo and what became of it."""

    face: Face
    status: FaceStatus
    seed: int
    identity_distance: float | None
    """The identity network's distance of the new face to the original; None where it could not look."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ReplacedPhoto:
    """The photo's new pixels, uint8 (height, width, 3), and its chosen faces in reading order."""

    pixels: Pixels
    faces: tuple[FaceOutcome, ...]
    left_alone: int
    """How many faces were found and not chosen."""


def face_seed(seed: int, index: int) -> int:
    """Return the seed of the face at `index` in reading order: the job's own for the first.

    The others follow from both numbers by SHA-256, so that no face's result depends on another face.
    """
    if index == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8]) & MAX_SEED


def largest_face(faces: Sequence[Face]) -> Face:
    """Return the face with the largest box; raises `NoFaceError` where there is none."""
    if not faces:
        raise NoFaceError("no face was found in the picture that gives the identity")
    return max(faces, key=_area)


def replace_faces(
    pixels: Pixels,
    faces: Sequence[Face],
    begin_face: BeginFace,
    *,
    only_largest: bool,
    seed: int,
    resolution: int,
    embedder: FaceEmbedder,
    max_faces: int = MAX_FACES,
    on_step: OnFaceStep | None = None,
) -> ReplacedPhoto:
    """Return the photo with all or the largest of its `faces` (in reading order) replaced.

    Outside the masks of replaced faces and the rounds that cover others, it is the photo, bit for bit.
    Each crop has `resolution` pixels. A face is covered where its landmarks are unusable, where making it
    fails, and where more than `max_faces` were chosen (the largest are replaced). Raises `StoppedError` where
    `on_step` stops the photo, `DeviceError`, what `begin_face` raises, and nothing else on account of a face.
    """
    chosen = [largest_face(faces)] if only_largest and faces else list(faces)
    within_limit = sorted(range(len(chosen)), key=lambda index: -_area(chosen[index]))[:max_faces]
    crops = [
        _crop(pixels, face, resolution)
        if index in within_limit
        else f"it is one of more than {max_faces} faces, the limit"
        for index, face in enumerate(chosen)
    ]
    seeds = [face_seed(seed, index) for index in range(len(chosen))]
    made = _make_all(crops, seeds, begin_face, resolution, _Progress(on_step, len(chosen)))
    outcomes = [
        FaceOutcome(face, FaceStatus.REDACTED, own_seed, None, (f"covered: {replacement}",))
        if isinstance(replacement, str)
        else FaceOutcome(face, FaceStatus.REPLACED, own_seed, None, ())
        for face, own_seed, replacement in zip(chosen, seeds, made, strict=True)
    ]
    pasted = paste_faces(pixels, [each for each in made if isinstance(each, Replacement)]).pixels
    covered = [outcome.face for outcome in outcomes if outcome.status is FaceStatus.REDACTED]
    # Covering comes last: a neighbour's crop may have held the face that is to be covered.
    result = cover_faces(pasted, covered)
    return ReplacedPhoto(
        pixels=result,
        faces=tuple(_compared(outcome, pixels, result, embedder) for outcome in outcomes),
        left_alone=len(faces) - len(chosen),
    )


@dataclass(frozen=True)
class _Crop:
    """A face cut out upright, and where from."""

    quad: Quad
    original: Pixels


def _crop(pixels: Pixels, face: Face, resolution: int) -> _Crop | str:
    """Cut out a face, or say why that cannot be done."""
    if face.landmarks is None:
        return "its landmarks are unusable"
    try:
        quad = align(face.landmarks)
        return _Crop(quad, crop_face(pixels, quad, resolution))
    except AlignmentError as error:
        return str(error)


def _make_all(
    crops: Sequence[_Crop | str],
    seeds: Sequence[int],
    begin_face: BeginFace,
    resolution: int,
    progress: "_Progress",
) -> list[Replacement | str]:
    """Make another face of every crop, all at the same time, or say for each why there is none."""
    making: dict[int, FaceInMaking] = {}
    try:
        for index, crop in enumerate(crops):
            if isinstance(crop, str):
                progress.skip(index)
            else:
                on_step = progress.of_face(index)
                making[index] = begin_face(Image.fromarray(crop.original), seeds[index], on_step)
        return [
            crop if isinstance(crop, str) else _result(crop, making[index], resolution)
            for index, crop in enumerate(crops)
        ]
    except BaseException:  # a stop, a failed device, a deadline: whatever ends the photo ends all its faces
        for face in making.values():
            face.cancel()
        raise


def _result(crop: _Crop, making: FaceInMaking, resolution: int) -> Replacement | str:
    """Wait for a face's replacement, or say why there is none."""
    try:
        made = making.result()
    except (StoppedError, DeviceError):
        raise
    except Exception:  # whatever fails, the face must not be left as it was
        log.exception("a face could not be made")
        return "the network could not make another face of it"
    return Replacement(crop.quad, crop.original, _pixels_of(made, resolution))


class _Progress:
    """Adds up the steps of the faces of one photo; a photo that was stopped stays so, for all its faces."""

    def __init__(self, on_step: OnFaceStep | None, faces: int) -> None:
        self._on_step = on_step
        self._done = [0.0] * faces  # the part of each that is done
        self._stopped: str | None = None

    def skip(self, index: int) -> None:
        """Count a face that is not made as finished."""
        self._done[index] = 1.0

    def of_face(self, index: int) -> OnStep:
        """Return what the face at `index` calls back."""

        def count(done: int, steps: int) -> None:
            if self._stopped is not None:
                raise StoppedError(self._stopped)
            self._done[index] = done / steps
            try:
                self._tell(round(sum(self._done) * steps), steps)
            except StoppedError as error:
                self._stopped = str(error)
                raise

        return count

    def _tell(self, total: int, steps: int) -> None:
        if self._on_step:
            face = max(-(-total // steps), 1)
            self._on_step(face, len(self._done), total - (face - 1) * steps, steps)


def _pixels_of(image: Image.Image, resolution: int) -> Pixels:
    fitted = image.convert("RGB")
    if fitted.size != (resolution, resolution):
        fitted = fitted.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _compared(outcome: FaceOutcome, before: Pixels, after: Pixels, embedder: FaceEmbedder) -> FaceOutcome:
    """Add the distance between the face before and after; the embeddings are gone when this returns."""
    landmarks = outcome.face.landmarks
    if outcome.status is not FaceStatus.REPLACED or landmarks is None:
        return outcome
    distance = embedder.distance(embedder.embed(before, landmarks), embedder.embed(after, landmarks))
    warnings = outcome.warnings
    if distance < embedder.threshold:
        warnings = (*warnings, "possibly recognizable")
    return replace(outcome, identity_distance=distance, warnings=warnings)


def _area(face: Face) -> float:
    return face.box.width * face.box.height
