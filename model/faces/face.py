"""A face in a photo, as values: what the finder returns, and what aligning, pasting and covering take.

Coordinates are in pixels of the oriented photo and continuous: the first pixel spans 0 to 1 both ways, its
centre is at (0.5, 0.5). A face over the edge of the photo has coordinates outside of it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels of the oriented photo, from its top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Landmarks:
    """Five points (x, y) of a face: the eyes' centres, the nose's tip, the mouth's corners.

    Left is what is on the left in an upright picture of the face: the viewer's left.
    """

    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    nose: tuple[float, float]
    mouth_left: tuple[float, float]
    mouth_right: tuple[float, float]


@dataclass(frozen=True)
class Face:
    """A face found in a photo; score from 0 (doubtful) to 1, landmarks None where they are unusable."""

    box: Box
    score: float
    landmarks: Landmarks | None
