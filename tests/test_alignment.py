"""Placing the crop on a face, and the pixels in it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import AlignmentError
from model.faces.alignment import Pixels, Quad, align, crop_face, resample
from model.faces.face import Landmarks

# As the 468-point mesh has them.
ASTRONAUT = Landmarks((203.3, 101.3), (246.7, 103.7), (222.4, 124.5), (199.2, 139.3), (246.8, 141.8))


def photo() -> Pixels:
    """Return the sample photo."""
    return np.asarray(Image.open(Path(__file__).parent.parent / "samples" / "astronaut.png").convert("RGB"))


def turned(landmarks: Landmarks, degrees: float) -> Landmarks:
    """Return the landmarks turned about the photo's corner."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = {
        name: (x * cos - y * sin, x * sin + y * cos) for name, (x, y) in dataclasses.asdict(landmarks).items()
    }
    return Landmarks(**points)


def test_crop_of_a_known_face() -> None:
    """Eyes 40 apart, mouth 40 below them: half the side 80 (2.0 eye distances), centre 4 below the eyes."""
    quad = align(Landmarks((80, 100), (120, 100), (100, 120), (85, 140), (115, 140)))
    assert quad.centre == pytest.approx((100, 104))
    assert quad.half == pytest.approx((80, 0))
    assert np.array(quad.corners) == pytest.approx(np.array([(20, 24), (20, 184), (180, 184), (180, 24)]))
    profile = align(Landmarks((98, 100), (102, 100), (90, 120), (99, 150), (101, 150)))
    assert profile.side == pytest.approx(2 * 1.8 * 50)


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_crop_turns_with_the_face(degrees: int) -> None:
    """At any angle the crop is the same square of the face: its side is the same and its axis turns along."""
    quad, upright = align(turned(ASTRONAUT, degrees)), align(ASTRONAUT)
    assert quad.side == pytest.approx(upright.side)
    angle = math.atan2(quad.half[1], quad.half[0]) - math.atan2(upright.half[1], upright.half[0])
    assert math.cos(angle - math.radians(degrees)) == pytest.approx(1)


def test_there_and_back() -> None:
    """The two affines undo each other, and the crop's corners lie on the quad's."""
    quad = align(turned(ASTRONAUT, 33))
    there, back = quad.from_crop(512), quad.to_crop(512)
    for point, corner in zip([(0, 0), (0, 512), (512, 512), (512, 0)], quad.corners, strict=True):
        assert there @ np.array([*point, 1.0]) == pytest.approx(np.array(corner))
        assert back @ np.array([*corner, 1.0]) == pytest.approx(np.array(point), abs=1e-6)


@pytest.mark.parametrize(
    ("landmarks", "sentence"),
    [
        (dataclasses.replace(ASTRONAUT, left_eye=(math.nan, 0.0)), "not a finite number"),
        (dataclasses.replace(ASTRONAUT, mouth_left=(math.inf, 0.0)), "not a finite number"),
        (Landmarks(*[(5.0, 5.0)] * 5), "within 0.0 pixels, the least is 4"),
        (Landmarks((0, 0), (1, 0), (0.5, 0.5), (0, 1), (1, 1)), "the least is 4"),
        (Landmarks((0, 0), (80, 0), (40, 5), (20, 5), (60, 5)), "mouth is 5.0 pixels from eyes 80.0 apart"),
        (Landmarks((40, 0), (0, 0), (20, 20), (36, 40), (4, 40)), "it would be mirrored"),
    ],
)
def test_degenerate_landmarks(landmarks: Landmarks, sentence: str) -> None:
    """Landmarks that no face has are refused with the measure that is off."""
    with pytest.raises(AlignmentError, match=sentence):
        align(landmarks)


def test_coincident_eyes_are_a_profile() -> None:
    """Eyes at one place with a mouth below them, as in a profile, still give a crop."""
    quad = align(Landmarks((100, 100), (100, 100), (80, 120), (100, 150), (100, 150)))
    assert quad.side == pytest.approx(180)
    assert quad.half[1] == pytest.approx(0)


@pytest.mark.parametrize(("width", "size"), [(4_000, 64), (1_000, 64), (300, 64), (2_000, 512)])
def test_shrinking_does_not_alias(width: int, size: int) -> None:
    """Detail that a small crop cannot hold becomes grey, not another pattern."""
    stripes = np.zeros((width, width, 3), dtype=np.uint8)
    stripes[::2] = 255
    crop = crop_face(stripes, Quad((width / 2, width / 2), (width / 2, 0.0)), size).astype(float)
    assert np.abs(crop[4:-4] - 127.5).max() < 6


def test_plain_copy_where_nothing_is_resampled() -> None:
    """A crop of the photo's own size and grid is the photo, bit for bit."""
    crop = crop_face(photo(), Quad((256.0, 256.0), (128.0, 0.0)), 256)
    assert np.array_equal(crop, photo()[128:384, 128:384])


def test_turned_crop_shows_the_turned_photo() -> None:
    """A crop turned by 90 degrees is the photo turned back by 90 degrees."""
    crop = crop_face(photo(), Quad((256.0, 256.0), (0.0, 128.0)), 256)
    assert np.abs(crop.astype(int) - np.rot90(photo()[128:384, 128:384])).max() <= 1


def test_beyond_the_edge() -> None:
    """What lies beyond the photo continues its colours softly; what lies inside is untouched."""
    quad = Quad((0.0, 256.0), (128.0, 0.0))
    crop = crop_face(photo(), quad, 256)
    assert np.array_equal(crop[:, 128:], photo()[128:384, :128])
    step = np.abs(crop[:, 128].astype(int) - crop[:, 127]).mean()
    assert step < 1.5 * np.abs(crop[:, 129].astype(int) - crop[:, 128]).mean() + 1
    detail = np.abs(np.diff(crop.astype(int), axis=1)).mean(axis=(0, 2))
    assert detail[:100].mean() < 0.7 * detail[130:].mean()


def test_wholly_outside() -> None:
    """A crop that touches no pixel is refused."""
    with pytest.raises(AlignmentError, match="outside the 512 x 512 photo"):
        crop_face(photo(), Quad((-500.0, 100.0), (50.0, 0.0)), 64)


def test_photos_longer_than_opencv_warps() -> None:
    """A panorama of 40,000 pixels is cropped at its far end."""
    panorama = np.zeros((64, 40_000, 3), dtype=np.uint8)
    panorama[:, 39_950:] = 200
    assert resample(panorama, Quad((39_975.0, 32.0), (20.0, 0.0)).from_crop(32), (32, 32)).min() == 200
