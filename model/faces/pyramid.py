"""A photo at several sizes, from which the finder's networks get their square tiles.

The photo as read comes before; after it come detection and landmarks, which look at tiles of any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A square of the photo: its centre and its side's length in pixels, its rotation in radians.

    A positive angle turns clockwise as seen: at pi / 2 the square's upper edge lies on the right.
    """

    centre: tuple[float, float]
    length: float
    angle: float = 0.0

    def to_photo(self, points: Points, side: int) -> Points:
        """Return the places in the photo of points (..., 2) of the view's tile with `side` pixels a side."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]]) * (self.length / side)
        photo: Points = (points - side / 2) @ turn + np.asarray(self.centre)
        return photo


class Pyramid:
    """A photo, pixels (height, width, 3), and smaller copies of it at the given scales (each below 1)."""

    def __init__(self, pixels: Pixels, scales: Sequence[float]) -> None:
        self.height, self.width = pixels.shape[:2]
        self._levels = [pixels]
        for scale in sorted(scales, reverse=True):
            size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
            self._levels.append(
                np.asarray(cv2.resize(self._levels[-1], size, interpolation=cv2.INTER_AREA), np.uint8)
            )

    def tile(self, view: View, side: int) -> Pixels:
        """Return the pixels (side, side, 3) of a view, filtered where it shrinks, black beyond the photo."""
        # The smallest copy that still has about the detail asked for: warping alone would alias.
        wanted = side / view.length
        level = min(
            (level for level in self._levels if level.shape[1] / self.width >= min(1.0, 0.99 * wanted)),
            key=lambda level: level.shape[1],
        )
        across, down = level.shape[1] / self.width, level.shape[0] / self.height
        corners = np.array([[0.5, 0.5], [side - 0.5, 0.5], [0.5, side - 0.5]])
        there = view.to_photo(corners, side) * (across, down) - 0.5
        tile = cv2.warpAffine(
            level,
            cv2.getAffineTransform((corners - 0.5).astype(np.float32), there.astype(np.float32)),
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        return np.asarray(tile, np.uint8)
