"""Covering faces: nothing of what was there may be in the result."""

import numpy as np
import pytest
from test_alignment import ASTRONAUT, photo

from model.errors import ParameterError
from model.faces.face import Box, Face
from model.faces.identity import DlibFaceEmbedder
from model.faces.redaction import COVERED, FADED, cover_faces

BOX = Box(186.0, 78.0, 80.0, 94.0)


def rounds(box: Box, reach: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return where in the sample photo a round of `reach` half boxes around the box lies."""
    y, x = np.mgrid[:512, :512] + 0.5
    half = max(box.width, box.height) / 2
    return np.hypot(x - box.x - box.width / 2, y - box.y - box.height / 2) <= reach * half


@pytest.mark.parametrize("box", [BOX, Box(-40.0, -40.0, 90.0, 90.0), Box(470.0, 300.0, 60.0, 80.0)])
def test_what_is_covered_is_not_in_the_result(box: Box) -> None:
    """Photos that differ under the cover alone become the same photo: there is nothing left to bring back."""
    random = np.random.default_rng(4711).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    other = photo().copy()
    other[rounds(box, COVERED)] = random[rounds(box, COVERED)]
    face = Face(box, 1.0, None)
    assert not np.array_equal(other, photo())
    assert np.array_equal(cover_faces(photo(), [face]), cover_faces(other, [face]))


def test_the_rest_is_untouched() -> None:
    """Beyond the soft edge the photo is itself, bit for bit, and the photo handed in is not written to."""
    pixels = photo().copy()
    covered = cover_faces(pixels, [Face(BOX, 1.0, ASTRONAUT)])
    outside = ~rounds(BOX, FADED)
    assert np.array_equal(covered[outside], pixels[outside])
    assert np.array_equal(pixels, photo())
    assert not np.array_equal(covered, pixels)


def test_identity_is_gone() -> None:
    """The identity network finds the covered face no nearer to the person than strangers are."""
    embedder = DlibFaceEmbedder()
    before = embedder.embed(photo(), ASTRONAUT)
    after = embedder.embed(cover_faces(photo(), [Face(BOX, 1.0, None)]), ASTRONAUT)
    assert embedder.distance(before, after) > embedder.threshold


def test_a_photo_that_is_all_face_becomes_grey() -> None:
    """Where no surroundings are left there is grey."""
    covered = cover_faces(photo(), [Face(Box(0.0, 0.0, 512.0, 512.0), 1.0, None)])
    assert (covered == 128).all()


def test_smallest_faces_and_boxes_outside() -> None:
    """A face of a pixel is covered, a box outside the photo changes nothing, and many boxes are no matter."""
    dot = cover_faces(photo(), [Face(Box(200.4, 100.2, 0.5, 0.5), 1.0, None)])
    assert not np.array_equal(dot[98:103, 198:203], photo()[98:103, 198:203])
    away = cover_faces(photo(), [Face(Box(3_000.0, 0.0, 10.0, 10.0), 1.0, None)])
    assert np.array_equal(away, photo())
    many = [
        Face(Box(float(x), float(y), 20.0, 20.0), 1.0, None)
        for x in range(0, 500, 80)
        for y in range(0, 500, 80)
    ]
    assert cover_faces(photo(), many).shape == photo().shape


@pytest.mark.parametrize("box", [Box(0, 0, 0, 10), Box(0, 0, 10, -1), Box(float("nan"), 0, 10, 10)])
def test_boxes_without_area(box: Box) -> None:
    """A box that has no area is refused and not passed over: its face would stay."""
    with pytest.raises(ParameterError, match="must have an area"):
        cover_faces(photo(), [Face(box, 1.0, None)])
