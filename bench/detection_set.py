"""Makes the detection test set from one photo, samples/astronaut.png: its head on canvases, with the truth.

The tests and the bench come after; both count with the same `score`.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.faces.face import Face

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

ASTRONAUT = Path(__file__).parent.parent / "samples" / "astronaut.png"
# Annotated by eye at nine times magnification: eyes, nose tip, mouth corners, in pixels. The face's width is
# that of the detector's box on the photo, from ear to ear, and its centre that box's.
LANDMARKS = np.array([[203.3, 101.3], [246.8, 103.6], [224.0, 127.0], [203.0, 139.5], [246.0, 140.0]])
WIDTH, CENTRE = 108.0, np.array([224.3, 120.7])
# The head with its hair, which is pasted: an ellipse by its centre and half axes.
HEAD, HALF_AXES = np.array([226.0, 108.0]), np.array([76.0, 86.0])


@dataclass(frozen=True)
class Truth:
    """A face that is in a photo: its width, its centre, its landmarks (5, 2) in the order of Landmarks."""

    width: float
    centre: Points
    landmarks: Points


@dataclass
class Photo:
    """A canvas (height, width, 3) with the faces pasted onto it so far."""

    pixels: Pixels
    truths: list[Truth] = field(default_factory=list)

    def paste(
        self, width: float, centre: tuple[float, float], angle: float = 0.0, *, mirrored: bool = False
    ) -> "Photo":
        """Pastes the head with a face of a width in pixels at a centre, turned clockwise by degrees."""
        source, mask, landmarks, middle = _head(mirrored=mirrored)
        scale = width / WIDTH
        shrunk = min(1.0, scale)
        if shrunk < 1:  # filtered first: warping alone would alias
            size = (round(source.shape[1] * shrunk), round(source.shape[0] * shrunk))
            source, mask = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (source, mask))
        turn = cv2.getRotationMatrix2D((0, 0), -angle, 1.0)[:, :2]
        matrix = np.column_stack([turn * scale, np.asarray(centre) - turn @ middle * scale])
        warp = np.column_stack([turn * scale / shrunk, matrix[:, 2]])
        warp[:, 2] += warp[:, :2] @ (0.5, 0.5) - 0.5  # pixel centres
        size = (self.pixels.shape[1], self.pixels.shape[0])
        head, alpha = (cv2.warpAffine(part, warp, size, flags=cv2.INTER_CUBIC) for part in (source, mask))
        alpha = np.clip(alpha, 0, 1)[..., None]
        self.pixels = np.clip(head * alpha + self.pixels * (1 - alpha), 0, 255).astype(np.uint8)
        self.truths.append(Truth(width, np.array(centre), landmarks @ matrix[:, :2].T + matrix[:, 2]))
        return self


def _head(*, mirrored: bool) -> tuple[Any, Any, Points, Points]:
    bgr = cv2.imread(str(ASTRONAUT))
    source = np.asarray(bgr, np.float32)[..., ::-1].copy()
    rows, columns = np.mgrid[: source.shape[0], : source.shape[1]]
    radius = np.hypot((columns - HEAD[0]) / HALF_AXES[0], (rows - HEAD[1]) / HALF_AXES[1])
    mask = np.clip((1 - radius) * 12, 0, 1).astype(np.float32)
    if not mirrored:
        return source, mask, LANDMARKS, CENTRE
    flipped = (source.shape[1], 0) + LANDMARKS[[1, 0, 2, 4, 3]] * (-1, 1)
    return source[:, ::-1].copy(), mask[:, ::-1].copy(), flipped, (source.shape[1], 0) + CENTRE * (-1, 1)


def canvas(kind: str, width: int, height: int) -> Photo:
    """Return a photo without faces: "noise", "gradient", or "texture" (the astronaut's suit and helmet)."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        pixels = rng.normal(120, 30, (height, width, 3)).clip(0, 255)
    elif kind == "gradient":
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack(
            [columns * 200 / width, rows * 200 / height, np.full((height, width), 90.0)], axis=-1
        )
    elif kind == "texture":
        cloth = np.asarray(cv2.imread(str(ASTRONAUT)))[260:, :, ::-1]
        pixels = np.asarray(cv2.resize(cloth, (width, height), interpolation=cv2.INTER_LINEAR))
    else:
        raise ValueError(f"there is no canvas {kind!r}")
    return Photo(pixels.astype(np.uint8))


def darkened(pixels: Pixels) -> Pixels:
    """Take all but an eighth of the light, and add the noise that a sensor then has."""
    return noisy((pixels * 0.125).astype(np.uint8), 2.0)


def noisy(pixels: Pixels, deviation: float = 25.0) -> Pixels:
    """Add Gaussian noise."""
    noise = np.random.default_rng(1).normal(0, deviation, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def grey(pixels: Pixels) -> Pixels:
    """Take the colour away."""
    return np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def covered(photo: Photo, part: str) -> Pixels:
    """Put a part of each upright face behind a plain shape: "eyes", "mouth", or "side" (the left half)."""
    pixels = photo.pixels.copy()
    spans = {
        "eyes": ((-0.6, -0.32), (0.6, -0.02)),
        "mouth": ((-0.6, 0.1), (0.6, 0.7)),
        "side": ((-0.8, -0.8), (0.0, 0.8)),
    }
    for truth in photo.truths:
        low, high = (
            (truth.centre + np.array(corner) * truth.width).round().astype(int).tolist()
            for corner in spans[part]
        )
        cv2.rectangle(pixels, low, high, (40, 44, 52), cv2.FILLED)
    return pixels


@dataclass(frozen=True)
class Score:
    """How finds compare with the truth; errors are the found faces' mean landmark errors in eye distances."""

    expected: int
    found: int
    false: int
    errors: tuple[float, ...]


def score(truths: Sequence[Truth], faces: Sequence[Face]) -> Score:
    """Match each truth with one face of about its place and size; the rest are false."""
    left = list(faces)
    errors = []
    found = 0
    for truth in truths:
        match = next((face for face in left if _matches(truth, face)), None)
        if match is None:
            continue
        found += 1
        left.remove(match)
        if match.landmarks is not None:
            points = np.array(astuple(match.landmarks))
            eyes = np.hypot(*(truth.landmarks[1] - truth.landmarks[0]))
            errors.append(float(np.hypot(*(points - truth.landmarks).T).mean() / eyes))
    return Score(len(truths), found, len(left), tuple(errors))


def _matches(truth: Truth, face: Face) -> bool:
    middle = np.array([face.box.x + face.box.width / 2, face.box.y + face.box.height / 2])
    side = (face.box.width + face.box.height) / 2
    return bool(np.hypot(*(middle - truth.centre)) < 0.5 * truth.width and 0.5 < side / truth.width < 2)
