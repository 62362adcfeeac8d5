"""Promises of the finder: which faces it finds, how exactly, and what it refuses."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import model.faces
from bench.detection_set import Photo, canvas, covered, darkened, grey, noisy, score
from model.errors import ParameterError, PictureError
from model.faces.detection import FaceFinder
from model.faces.drawing import draw
from model.faces.face import Face

CANVASES = ("noise", "gradient", "texture")
WEIGHTS = Path(model.faces.__file__).parent / "weights"


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    """Load the networks once, as a worker does."""
    return FaceFinder(threads=1)


def middle(face: Face) -> tuple[float, float]:
    """Return the centre of a face's box."""
    return face.box.x + face.box.width / 2, face.box.y + face.box.height / 2


def sure(faces: list[Face]) -> list[Face]:
    """Return the finds that are not doubtful."""
    return [face for face in faces if face.score >= 0.6]


@pytest.mark.parametrize("name", ["face_detection_full_range.tflite", "face_landmark.tflite"])
def test_weights_are_those_of_their_origin(name: str) -> None:
    """Each network's file has the digest that the README beside it gives."""
    digest = hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest()
    assert re.search(rf"{re.escape(name)}.*{digest}", (WEIGHTS / "README.md").read_text())


@pytest.mark.parametrize("kind", CANVASES)
@pytest.mark.parametrize("width", [30, 40, 60, 90, 140, 200, 280])
def test_upright_faces_are_all_found(finder: FaceFinder, kind: str, width: int) -> None:
    """An upright face from 30 pixels is found, once, with landmarks within a tenth of the eye distance."""
    photo = canvas(kind, 640, 480).paste(width, (310, 250))
    result = score(photo.truths, sure(finder.find(photo.pixels)))
    assert (result.found, result.false) == (1, 0)
    assert result.errors[0] < (0.10 if width >= 60 else 0.15)


@pytest.mark.parametrize("width", [30, 120])
@pytest.mark.parametrize("angle", range(-180, 180, 15))
def test_turned_faces_are_all_found(finder: FaceFinder, width: int, angle: int) -> None:
    """A face alone in a photo is found at any angle, its landmarks named as in an upright picture of it."""
    photo = canvas("gradient", 480, 400).paste(width, (231, 203), angle)
    result = score(photo.truths, finder.find(photo.pixels))
    assert result.found == 1
    if abs(angle) <= 60:
        assert result.errors[0] < 0.15


@pytest.mark.parametrize("mirrored", [False, True])
def test_left_and_right_are_the_viewers(finder: FaceFinder, mirrored: bool) -> None:
    """Mirroring a face does not swap the names of its landmarks."""
    photo = canvas("gradient", 600, 500).paste(110, (300, 250), mirrored=mirrored)
    (face,) = finder.find(photo.pixels)
    assert face.landmarks is not None
    assert face.landmarks.left_eye[0] < face.landmarks.nose[0] < face.landmarks.right_eye[0]
    assert face.landmarks.mouth_left[0] < face.landmarks.mouth_right[0]
    assert score(photo.truths, [face]).errors[0] < 0.1


@pytest.mark.parametrize("width", [1000, 2000])
def test_a_face_that_fills_the_photo_is_found(finder: FaceFinder, width: int) -> None:
    """One face of a thousand pixels and more is one find, without smaller ones inside of it."""
    photo = canvas("gradient", 2200, 2300).paste(width, (1100, 1200))
    result = score(photo.truths, finder.find(photo.pixels))
    assert (result.found, result.false) == (1, 0)


def test_small_and_large_faces_of_one_photo_are_all_found(finder: FaceFinder) -> None:
    """A 12-megapixel photo's faces from 24 to 1,200 pixels are found together."""
    photo = canvas("gradient", 4032, 3024).paste(1200, (1000, 1500))
    for index, width in enumerate([24, 27, 30, 36, 44, 60, 90, 140, 220, 340]):
        photo.paste(width, (2200 + 411 * (index % 4), 350 + 617 * (index // 4)), mirrored=index % 2 == 1)
    assert score(photo.truths, finder.find(photo.pixels)).found == 11


@pytest.mark.parametrize("change", [darkened, noisy, grey])
@pytest.mark.parametrize("width", [40, 120])
def test_bad_light_hides_no_face(finder: FaceFinder, change: object, width: int) -> None:
    """A face is found in the dark, under noise and without colour."""
    photo = canvas("texture", 640, 480).paste(width, (310, 250))
    assert callable(change)
    assert score(photo.truths, finder.find(change(photo.pixels))).found == 1


@pytest.mark.parametrize("part", ["eyes", "mouth", "side"])
@pytest.mark.parametrize("width", [40, 120])
def test_a_half_covered_face_is_found(finder: FaceFinder, part: str, width: int) -> None:
    """A bar over the eyes, a mask over the mouth, a wall before one half: what is left still identifies."""
    photo = canvas("gradient", 700, 500).paste(width, (320, 240))
    assert score(photo.truths, finder.find(covered(photo, part))).found == 1


@pytest.mark.parametrize("corner", [(0.25, 2.0), (2.0, 0.2), (0.3, 0.3), (3.0, 2.0)])
def test_faces_over_the_edge_are_found(finder: FaceFinder, corner: tuple[float, float]) -> None:
    """A face is found with a quarter of it beyond the photo's edge, its box reaching there as well."""
    width = 120
    photo = canvas("gradient", 600, 450).paste(width, (corner[0] * width, corner[1] * width))
    faces = finder.find(photo.pixels)
    assert score(photo.truths, faces).found == 1
    assert (faces[0].box.x < 0 or faces[0].box.y < 0) == (min(corner) < 0.5)


def test_no_face_is_found_where_there_is_none(finder: FaceFinder) -> None:
    """Noise and gradients are not faces, looked at from all sides; cloth is at most a doubtful one."""
    assert finder.find(canvas("noise", 640, 480).pixels) == []
    assert finder.find(canvas("gradient", 640, 480).pixels) == []
    assert sure(finder.find(canvas("texture", 640, 480).pixels)) == []


def test_faces_come_in_reading_order(finder: FaceFinder) -> None:
    """Rows from the top, each from the left, though the faces of a row are not exactly level."""
    places = [(140, 160), (420, 140), (700, 165), (180, 420), (520, 440)]
    photo = canvas("gradient", 900, 600)
    for place in places[::-1]:
        photo.paste(90, place)
    centres = [middle(face) for face in finder.find(photo.pixels)]
    assert np.allclose(centres, places, atol=20)


def test_finding_again_gives_the_same(finder: FaceFinder) -> None:
    """A photo's faces do not depend on the photos before it."""
    photo = canvas("texture", 600, 500).paste(80, (200, 200)).paste(50, (400, 300), 20)
    first = finder.find(photo.pixels)
    finder.find(canvas("noise", 300, 900).paste(200, (150, 400)).pixels)
    assert finder.find(photo.pixels) == first


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (40, 40)])
def test_any_size_of_photo_can_be_looked_at(finder: FaceFinder, size: tuple[int, int]) -> None:
    """A photo too small or too narrow for a face has none."""
    assert finder.find(np.full((*size, 3), 90, np.uint8)) == []


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 1.0, float("nan")])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    """The error names the value and the limit."""
    with pytest.raises(ParameterError, match=rf"{threshold}.*above 0 and below 1"):
        FaceFinder(threshold)


def test_pixels_of_another_kind_are_refused(finder: FaceFinder) -> None:
    """Grey or floating point pixels are an error, not a photo without faces."""
    for pixels in (np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3), np.float32)):
        with pytest.raises(PictureError, match="must be uint8"):
            finder.find(pixels)  # type: ignore[arg-type]


def test_drawing_marks_each_face_and_nothing_else(finder: FaceFinder) -> None:
    """Boxes and landmarks appear on a copy; the photo and what is away from its faces stay as they were."""
    photo: Photo = canvas("gradient", 600, 500).paste(110, (300, 250))
    before = photo.pixels.copy()
    drawn = draw(photo.pixels, finder.find(photo.pixels))
    changed = (drawn != before).any(axis=2)
    assert (photo.pixels == before).all()
    assert 500 < changed.sum() < 6000
    assert not changed[350:].any()
