"""Generated faces brought back into the photo, at its full resolution and without a seam.

Before it the network has made a face from each aligned crop of the untouched photo; after it faces that could
not be replaced are covered, and the photo is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from model.errors import AlignmentError
from model.faces.alignment import Pixels, Quad, resample, smoothstep

Weights = npt.NDArray[np.float32]

# The mask in a crop, by distance from its middle as `_distance` has it (1 at the edges). Face ovals of
# 468-point meshes reached 0.92 on 50 portraits, profiles and jaws the farthest, so the whole face lies in
# the core, and there nothing of the photo is left.
CORE = 0.93
RIM = 1.0
YIELD = 0.1  # over which one face gives way to a neighbour that is nearer to its own middle
_FIT_SIZE = 128  # pixels across, for colours along the seam
_FIT_REACH = 0.07  # of the crop: standard deviation of the area that shares a colour correction


@dataclass(frozen=True)
class Replacement:
    """A face to paste: where it lies, the crop taken there from the untouched photo, and what replaces it.

    `original` and `result` are uint8 (size, size, 3) of the same size.
    """

    quad: Quad
    original: Pixels
    result: Pixels


@dataclass(frozen=True)
class Pasted:
    """A photo with its faces replaced; `bounds` are the areas they touch (x, y, width, height), in order."""

    pixels: Pixels
    bounds: tuple[tuple[int, int, int, int], ...]


def paste_faces(pixels: Pixels, replacements: Sequence[Replacement]) -> Pasted:
    """Return a copy of the photo with the faces in place; outside their masks it is the photo, bit for bit.

    Crops must come from the untouched photo. The smallest face is laid down first, since of two faces that
    overlap the larger is mostly nearer to the camera; but a crop also holds a neighbour's *original* face at
    its side, made again by the network, so where crops overlap each point is given to the face whose middle
    is nearer in its own crop, and no face returns in another's crop. Raises AlignmentError where a crop is
    not square or not its original's size.
    """
    composed = pixels.copy()
    height, width = pixels.shape[:2]
    laid: list[Quad] = []
    for replacement in sorted(replacements, key=lambda candidate: candidate.quad.side):
        _lay(composed, replacement, laid)
        laid.append(replacement.quad)
    return Pasted(composed, tuple(replacement.quad.bounds(width, height) for replacement in replacements))


def mask(quad: Quad, left: int, top: int, width: int, height: int) -> Weights:
    """Return how much of a crop shows in an area of the photo, float32 (height, width), 1 in the face."""
    return _fade(_distance(quad, left, top, width, height))


def fit_colours(original: Pixels, result: Pixels) -> Pixels:
    """Return `result` with its colours at the mask's rim shifted to those of `original`, less so inwards.

    The shift is the difference of the two from the mask's rim outwards, averaged over a neighbourhood
    (normalized convolution, Knutsson and Westin, CVPR 1993): the core takes no part in it, so nothing of the
    original face can pass through, and a face keeps the skin the network gave it.
    """
    size = result.shape[0]
    small = (_FIT_SIZE, _FIT_SIZE)
    ours = cv2.resize(result, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    theirs = cv2.resize(original, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = mask(Quad((_FIT_SIZE / 2, _FIT_SIZE / 2), (_FIT_SIZE / 2, 0.0)), 0, 0, *small)
    rim = 1.0 - inside
    reach = _FIT_REACH * _FIT_SIZE
    shift = cv2.GaussianBlur((theirs - ours) * rim[..., None], (0, 0), reach, borderType=cv2.BORDER_REPLICATE)
    share = cv2.GaussianBlur(rim, (0, 0), reach, borderType=cv2.BORDER_REPLICATE)[..., None]
    # What the middle is given falls off with its share of the rim; on the rim itself the constant is of
    # no weight.
    correction = cv2.resize(shift / (share + 0.01), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(np.rint(result + correction), 0, 255), dtype=np.uint8)


def _lay(composed: Pixels, replacement: Replacement, laid: Sequence[Quad]) -> None:
    size = replacement.result.shape[0]
    if replacement.result.shape != (size, size, 3) or replacement.original.shape != (size, size, 3):
        raise AlignmentError(
            f"the crop is {replacement.original.shape} and its replacement {replacement.result.shape}, "
            "both must be (size, size, 3)"
        )
    quad = replacement.quad
    left, top, width, height = quad.bounds(composed.shape[1], composed.shape[0])
    if not width or not height:
        return
    fitted = fit_colours(replacement.original, replacement.result)
    # Strips keep a face that fills the photo from needing its area in floats; a smaller face than the
    # crop is one.
    for first in range(top, top + height, 2 * size):
        rows = min(2 * size, top + height - first)
        distance = _distance(quad, left, first, width, rows)
        shown = _fade(distance)
        for neighbour in laid:
            nearer = _distance(neighbour, left, first, width, rows) - distance
            shown *= smoothstep(np.clip(nearer / YIELD + np.float32(1.0), 0.0, 1.0))
        matrix = quad.to_crop(size)
        matrix[:, 2] += matrix[:, :2] @ np.array([left, first], dtype=np.float64)
        face = resample(fitted, matrix, (width, rows)).astype(np.float32)
        area = composed[first : first + rows, left : left + width]
        area[...] = np.rint(area + shown[..., None] * (face - area))


def _distance(quad: Quad, left: int, top: int, width: int, height: int) -> Weights:
    """Return an area's distances from the quad's middle, 1 on its edges; the circles are squircles."""
    matrix = quad.to_crop(2).astype(np.float32)  # to -1 .. 1 once 1 is taken off
    x = np.arange(left, left + width, dtype=np.float32) + np.float32(0.5)
    y = (np.arange(top, top + height, dtype=np.float32) + np.float32(0.5))[:, None]
    fourths = np.zeros((height, width), dtype=np.float32)
    for row in matrix:
        fourths += np.square(np.square(row[0] * x + row[1] * y + (row[2] - np.float32(1.0))))
    return np.sqrt(np.sqrt(fourths))


def _fade(distance: Weights) -> Weights:
    return smoothstep(np.clip((np.float32(RIM) - distance) / np.float32(RIM - CORE), 0.0, 1.0))
