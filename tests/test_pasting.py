"""Pasting faces back: what returns, what stays, what may not show through."""

import math

import numpy as np
import pytest
from PIL import Image
from test_alignment import ASTRONAUT, photo

from model.errors import AlignmentError
from model.faces.alignment import Pixels, Quad, align, crop_face
from model.faces.pasting import CORE, Replacement, fit_colours, mask, paste_faces

SIZE = 512
FACE_WIDTH = 86.0  # of the sample's face, in its pixels
LEFT, SIDE = 104, 240  # the part of the sample around it


def scaled(width: float, degrees: float = 0.0) -> tuple[Pixels, Quad]:
    """Return the sample with a face of `width` pixels, and its crop turned by some degrees."""
    side = round(SIDE * width / FACE_WIDTH)
    part = Image.fromarray(photo()[:SIDE, LEFT : LEFT + SIDE])
    pixels = np.asarray(part.resize((side, side), Image.Resampling.LANCZOS))
    quad, scale = align(ASTRONAUT), side / SIDE
    length, angle = quad.side / 2 * scale, math.radians(degrees)
    centre = ((quad.centre[0] - LEFT) * scale, quad.centre[1] * scale)
    return pixels, Quad(centre, (length * math.cos(angle), length * math.sin(angle)))


def shown(pixels: Pixels, quad: Quad) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the mask of a crop over the whole photo."""
    return mask(quad, 0, 0, pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize(
    ("width", "degrees"), [(30, 0), (30, 20), (60, 20), (120, 0), (120, 45), (500, 0), (500, 20), (2_000, 10)]
)
def test_the_crop_itself_returns_the_photo(width: int, degrees: int) -> None:
    """With the crop as its own result the masked area returns above 40 dB, the rest exactly."""
    pixels, quad = scaled(width, degrees)
    crop = crop_face(pixels, quad, SIZE)
    pasted = paste_faces(pixels, [Replacement(quad, crop, crop)]).pixels
    inside = shown(pixels, quad) > 0
    error = np.square(pasted[inside].astype(np.float32) - pixels[inside]).mean()
    assert 10 * math.log10(255**2 / max(float(error), 1e-9)) > 40
    assert np.array_equal(pasted[~inside], pixels[~inside])


def test_the_photo_itself_is_not_changed() -> None:
    """The photo that is handed in keeps its pixels, and no replacements give its equal."""
    pixels, quad = scaled(100)
    before = pixels.copy()
    crop = crop_face(pixels, quad, 64)
    paste_faces(pixels, [Replacement(quad, crop, np.zeros_like(crop))])
    assert np.array_equal(pixels, before)
    assert np.array_equal(paste_faces(pixels, []).pixels, before)


@pytest.mark.parametrize("width", [30, 100, 600])
def test_nothing_shines_through(width: int) -> None:
    """In the core the result does not depend on the original's pixels, neither by mask nor by colours."""
    pixels, quad = scaled(width, 10)
    result = crop_face(pixels, quad, SIZE)[::-1].copy()
    core = shown(pixels, quad) == 1
    other = pixels.copy()
    far_in = shown(pixels, Quad(quad.centre, (quad.half[0] * 0.9, quad.half[1] * 0.9))) == 1
    other[far_in] = 255 - other[far_in]
    first, second = (
        paste_faces(source, [Replacement(quad, crop_face(source, quad, SIZE), result)]).pixels
        for source in (pixels, other)
    )
    assert core.any()
    # A filter's reach at the edge of what was changed may move a level.
    assert np.abs(first[core].astype(int) - second[core]).max() <= 2


def test_core_holds_the_face() -> None:
    """The mask is exactly 1 from 0.93 of the way to each edge inwards, and 0 on the crop's border."""
    quad = Quad((500.0, 500.0), (500.0, 0.0))
    weights = mask(quad, 0, 0, 1000, 1000)
    reach = int(500 * CORE) - 1
    assert weights[500, 500 - reach : 500 + reach].min() == 1
    assert weights[500 - reach : 500 + reach, 500].min() == 1
    assert max(weights[0].max(), weights[-1].max(), weights[:, 0].max(), weights[:, -1].max()) < 1e-3


@pytest.mark.parametrize("shift", [(40, 0, -40), (-30, -30, -30), (25, 25, 25)])
def test_no_step_at_the_seam(shift: tuple[int, int, int]) -> None:
    """A result of other colours meets the photo without a step, and keeps its colours in the middle."""
    grey = np.full((600, 600, 3), 120, dtype=np.uint8)
    quad = Quad((300.0, 300.0), (200.0, 50.0))
    crop = crop_face(grey, quad, SIZE)
    result = (crop.astype(int) + shift).astype(np.uint8)
    pasted = paste_faces(grey, [Replacement(quad, crop, result)]).pixels.astype(int)
    assert np.abs(np.diff(pasted, axis=0)).max() <= 4
    assert np.abs(np.diff(pasted, axis=1)).max() <= 4
    assert pasted[300, 300].tolist() == (np.array([120, 120, 120]) + shift).tolist()


def test_colours_do_not_read_the_core() -> None:
    """Two originals that differ in the core alone give the same colours."""
    random = np.random.default_rng(4711)
    original, result = (random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2))
    other = original.copy()
    other[40:-40, 40:-40][mask(Quad((216, 216), (216 * 0.98, 0.0)), 0, 0, 432, 432) == 1] = 0
    assert not np.array_equal(original, other)
    assert np.array_equal(fit_colours(original, result), fit_colours(other, result))


@pytest.mark.parametrize("order", [1, -1])
def test_a_neighbour_does_not_return(order: int) -> None:
    """Each of two overlapping faces is replaced, although the other's crop shows it as it was."""
    pixels = np.full((400, 600, 3), 128, dtype=np.uint8)
    pixels[150:250, 200:260] = (255, 0, 0)  # one face's features
    pixels[150:250, 320:400] = (0, 0, 255)  # the other's, larger
    quads = [Quad((230.0, 200.0), (110.0, 0.0)), Quad((360.0, 200.0), (150.0, 0.0))]
    replacements = []
    for quad, colour in zip(quads, [(255, 0, 0), (0, 0, 255)], strict=True):
        crop = crop_face(pixels, quad, 256)
        result = crop.copy()
        result[np.abs(crop.astype(int) - colour).max(axis=2) < 100] = (0, 200, 0)  # own features alone
        replacements.append(Replacement(quad, crop, result))
    pasted = paste_faces(pixels, replacements[::order]).pixels.astype(int)
    assert (np.abs(pasted[155:245, 210:250] - (0, 200, 0)).max(axis=2) < 60).all()
    assert (np.abs(pasted[155:245, 330:390] - (0, 200, 0)).max(axis=2) < 60).all()


def test_the_order_of_the_list_does_not_matter() -> None:
    """Faces are composed by their size, not by their place in the list; bounds follow the list."""
    pixels, quad = scaled(80)
    near = Quad((quad.centre[0] + 60, quad.centre[1]), (quad.half[0] * 1.2, 0.0))
    replacements = [
        Replacement(q, crop_face(pixels, q, 64), crop_face(pixels, q, 64)[::-1]) for q in (quad, near)
    ]
    forwards, backwards = paste_faces(pixels, replacements), paste_faces(pixels, replacements[::-1])
    assert np.array_equal(forwards.pixels, backwards.pixels)
    assert forwards.bounds == backwards.bounds[::-1]


def test_over_the_edge_and_outside() -> None:
    """A face over the photo's edge is pasted where there is photo, and one wholly outside changes nothing."""
    pixels = photo()
    crop = np.zeros((64, 64, 3), dtype=np.uint8)
    for centre in ((0.0, 0.0), (512.0, 300.0), (256.0, 520.0)):
        pasted = paste_faces(pixels, [Replacement(Quad(centre, (60.0, 20.0)), crop, crop + 90)])
        x, y, width, height = pasted.bounds[0]
        assert width * height > 0
        outside = np.ones((512, 512), dtype=bool)
        outside[y : y + height, x : x + width] = False
        assert np.array_equal(pasted.pixels[outside], pixels[outside])
        assert not np.array_equal(pasted.pixels, pixels)
    away = paste_faces(pixels, [Replacement(Quad((900.0, 100.0), (60.0, 0.0)), crop, crop)])
    assert np.array_equal(away.pixels, pixels)


def test_crops_of_other_shapes_are_refused() -> None:
    """A result of another size than the crop is named, not stretched."""
    small, large = np.zeros((32, 32, 3), dtype=np.uint8), np.zeros((64, 64, 3), dtype=np.uint8)
    with pytest.raises(AlignmentError, match=r"\(32, 32, 3\)"):
        paste_faces(photo(), [Replacement(align(ASTRONAUT), small, large)])
