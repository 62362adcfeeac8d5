"""Faces covered for good: what becomes of a face that was found and could not be replaced.

Before it come the faces left over when the others have been replaced and pasted (a neighbour's crop may hold
them, so covering is last); after it the photo is written.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from model.errors import ParameterError
from model.faces.alignment import Pixels, smoothstep
from model.faces.face import Face

# In halves of the box's longer side, from its middle: a head with its hair at any turn of the face lies in
# the first.
COVERED = 1.7
FADED = 2.1
_SURROUNDINGS = 2.6
_FILL_SIZE = 48  # pixels across: finer than that the surroundings' colours are not wanted
_FILL_REACH = 0.2  # of it: standard deviation of what is averaged
_GREY = 128.0
_STRIP = 256  # rows


def cover_faces(pixels: Pixels, faces: Sequence[Face]) -> Pixels:
    """Return a copy of the photo in which a round of its surroundings' colours hides the head of each face.

    The colours come only from pixels outside the round, so what was in it is not in the result in any form
    and cannot be brought back. Only the box is used: landmarks may be None, the face at any angle and over
    the edge of the photo. A face that fills the photo becomes grey. Raises ParameterError for a box without
    area.
    """
    covered = pixels.copy()
    for face in faces:
        _cover(covered, face)
    return covered


def _cover(pixels: Pixels, face: Face) -> None:
    box = face.box
    reach = max(box.width, box.height) / 2.0
    if not np.isfinite([box.x, box.y, reach]).all() or min(box.width, box.height) <= 0:
        raise ParameterError(f"the face's box is {box.width} x {box.height} pixels, it must have an area")
    middle_x, middle_y = box.x + box.width / 2.0, box.y + box.height / 2.0
    height, width = pixels.shape[:2]
    reach = max(reach, 1.0)
    left, right = (int(np.clip(middle_x + sign * _SURROUNDINGS * reach, 0, width)) for sign in (-1, 1))
    top, bottom = (int(np.clip(middle_y + sign * _SURROUNDINGS * reach, 0, height)) for sign in (-1, 1))
    if right <= left or bottom <= top:
        return  # the box lies wholly outside
    area = pixels[top:bottom, left:right]
    x = (np.arange(left, right, dtype=np.float32) + 0.5 - middle_x) / reach
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - middle_y) / reach
    distance = np.sqrt(np.square(x)[None, :] + np.square(y)[:, None]).astype(np.float32)
    outside = (distance > COVERED).astype(np.uint8)
    fill = cv2.resize(
        _surroundings(area * outside[..., None], outside),
        (right - left, bottom - top),
        interpolation=cv2.INTER_CUBIC,
    )
    shown = smoothstep(np.clip((np.float32(FADED) - distance) / np.float32(FADED - COVERED), 0.0, 1.0))
    for first in range(
        0, bottom - top, _STRIP
    ):  # a face that fills the photo must not need its area in floats
        strip = slice(first, first + _STRIP)
        difference = fill[strip].astype(np.float32) - area[strip]
        area[strip] = np.rint(area[strip] + shown[strip, :, None] * difference)


def _surroundings(pixels: Pixels, outside: Pixels) -> Pixels:
    """Return a small picture of the colours that `outside` (0 or 1) lets through, spread over the rest."""
    small = (_FILL_SIZE, _FILL_SIZE)
    share = cv2.resize(outside.astype(np.float32), small, interpolation=cv2.INTER_AREA)[..., None]
    colours = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    reach = _FILL_REACH * _FILL_SIZE
    spread = cv2.GaussianBlur(colours, (0, 0), reach, borderType=cv2.BORDER_REPLICATE)
    weight = cv2.GaussianBlur(share, (0, 0), reach, borderType=cv2.BORDER_REPLICATE)[..., None]
    # Where nothing outside is near, the division has nothing to go by and grey takes over.
    faint = np.float32(1e-4)
    return np.clip(np.rint((spread + faint * _GREY) / (weight + faint)), 0, 255).astype(np.uint8)
