"""Replaces the faces of a whole photo: align, make another face of each, paste back, cover what could not be
replaced, compare identities. Between `model.photo`, which reads and writes, and `model.anonymize`, which
makes one aligned face.

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

from model.anonymize import MAX_SEED
from model.errors import AlignmentError, NoFaceError, StoppedError
from model.faces.alignment import Pixels, align, crop_face
from model.faces.face import Face
from model.faces.identity import FaceEmbedder
from model.faces.pasting import Replacement, paste_faces
from model.faces.redaction import cover_faces
from model.sampling import OnStep

log = logging.getLogger("face_anon.model")

MAX_FACES = 32

MakeFace = Callable[[Image.Image, int, OnStep], Image.Image]
"""Makes another face of an aligned crop (RGB, square) with a seed, calling back at each step."""

OnFaceStep = Callable[[int, int, int, int], None]
"""Called with (face, faces, steps done, steps), the face counted from 1."""


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
    make_face: MakeFace,
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
    `on_step` stops the run, and nothing else on account of a face.
    """
    chosen = [largest_face(faces)] if only_largest and faces else list(faces)
    within_limit = sorted(range(len(chosen)), key=lambda index: -_area(chosen[index]))[:max_faces]
    outcomes: list[FaceOutcome] = []
    replacements: list[Replacement] = []
    for index, face in enumerate(chosen):
        own_seed = face_seed(seed, index)
        reason = f"it is one of more than {max_faces} faces, the limit"
        if index in within_limit:
            made = _replace(pixels, face, make_face, own_seed, resolution, _counted(on_step, index, chosen))
            if isinstance(made, Replacement):
                replacements.append(made)
                outcomes.append(FaceOutcome(face, FaceStatus.REPLACED, own_seed, None, ()))
                continue
            reason = made
        outcomes.append(FaceOutcome(face, FaceStatus.REDACTED, own_seed, None, (f"covered: {reason}",)))
    pasted = paste_faces(pixels, replacements).pixels
    covered = [outcome.face for outcome in outcomes if outcome.status is FaceStatus.REDACTED]
    # Covering comes last: a neighbour's crop may have held the face that is to be covered.
    result = cover_faces(pasted, covered)
    return ReplacedPhoto(
        pixels=result,
        faces=tuple(_compared(outcome, pixels, result, embedder) for outcome in outcomes),
        left_alone=len(faces) - len(chosen),
    )


def _replace(
    pixels: Pixels, face: Face, make_face: MakeFace, seed: int, resolution: int, on_step: OnStep
) -> Replacement | str:
    """Make the replacement of one face, or say why there is none."""
    if face.landmarks is None:
        return "its landmarks are unusable"
    try:
        quad = align(face.landmarks)
        original = crop_face(pixels, quad, resolution)
    except AlignmentError as error:
        return str(error)
    try:
        result = make_face(Image.fromarray(original), seed, on_step)
    except StoppedError:
        raise
    except Exception:  # whatever fails, the face must not be left as it was
        log.exception("a face could not be made")
        return "the network could not make another face of it"
    return Replacement(quad, original, _pixels_of(result, resolution))


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


def _counted(on_step: OnFaceStep | None, index: int, faces: Sequence[Face]) -> OnStep:
    def count(done: int, steps: int) -> None:
        if on_step:
            on_step(index + 1, len(faces), done, steps)

    return count


def _area(face: Face) -> float:
    return face.box.width * face.box.height
