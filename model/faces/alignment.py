"""Where the network's crop lies on a face, and the pixels in it.

Before it come the landmarks of a found face; after it the network makes another face from the crop, and
pasting brings that back to the same place. Points are continuous: pixel (0, 0) covers 0 to 1, its centre is
at 0.5.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import AlignmentError
from model.faces.face import Landmarks

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

MIN_DISTANCE = 4.0  # pixels; below it a landmark error of half a pixel turns the crop by ten degrees
MAX_STRETCH = 4.0  # eye distance over eye-to-mouth distance; about 1 in a frontal face
BEYOND_EDGE_FADE = (
    0.1  # of the crop's side: how far beyond the photo's edge the mirrored pixels become a blur
)
_KERNEL_REACH = 8  # pixels that Lanczos and Gaussian kernels need around the area they fill


@dataclass(frozen=True)
class Quad:
    """The square of a face's crop on the photo, in its pixels; it may be turned and reach beyond the edge.

    `centre` is its middle and `half` the vector from there to the middle of its right edge.
    """

    centre: tuple[float, float]
    half: tuple[float, float]

    @property
    def side(self) -> float:
        """The length of an edge in pixels of the photo."""
        return 2.0 * math.hypot(*self.half)

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """Upper left, lower left, lower right, upper right, as the upright face sees them."""
        (cx, cy), (hx, hy) = self.centre, self.half
        return (
            (cx - hx + hy, cy - hy - hx),
            (cx - hx - hy, cy - hy + hx),
            (cx + hx - hy, cy + hy + hx),
            (cx + hx + hy, cy + hy - hx),
        )

    def from_crop(self, size: int) -> Matrix:
        """Return the affine (2, 3) that takes a point of the `size` pixel crop to its place on the photo."""
        (cx, cy), (hx, hy) = self.centre, self.half
        scale = 2.0 / size
        return np.array(
            [[hx * scale, -hy * scale, cx - hx + hy], [hy * scale, hx * scale, cy - hy - hx]],
            dtype=np.float64,
        )

    def to_crop(self, size: int) -> Matrix:
        """Return the affine (2, 3) that takes a point of the photo to its place on the `size` pixel crop."""
        return inverted(self.from_crop(size))

    def bounds(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the part of a photo that it touches: x, y, width, height in whole pixels, 0 where none."""
        xs, ys = zip(*self.corners, strict=True)
        left, right = (min(max(bound, 0), width) for bound in (math.floor(min(xs)), math.ceil(max(xs))))
        top, bottom = (min(max(bound, 0), height) for bound in (math.floor(min(ys)), math.ceil(max(ys))))
        return left, top, right - left, bottom - top


def align(landmarks: Landmarks) -> Quad:
    """Return the crop of FFHQ on a face, the one the network was trained on.

    Its x axis is the eye-to-eye vector minus the turned eye-to-mouth vector, half its side the longer of 2.0
    eye distances and 1.8 eye-to-mouth distances, its centre the eyes' middle plus 0.1 eye-to-mouth (Karras et
    al., "A Style-Based Generator Architecture", CVPR 2019, appendix A). Raises AlignmentError for degenerate
    landmarks.
    """
    points = np.array(
        [landmarks.left_eye, landmarks.right_eye, landmarks.mouth_left, landmarks.mouth_right],
        dtype=np.float64,
    )
    if not np.isfinite(points).all():
        raise AlignmentError("a landmark is not a finite number of pixels")
    eyes, mouth = points[:2].mean(axis=0), points[2:].mean(axis=0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    between_eyes, down = float(np.hypot(*eye_to_eye)), float(np.hypot(*eye_to_mouth))
    if max(between_eyes, down) < MIN_DISTANCE:
        raise AlignmentError(
            f"eyes and mouth lie within {max(between_eyes, down):.1f} pixels, the least is {MIN_DISTANCE:g}"
        )
    # A profile's eyes meet, so a small eye distance alone is a face; a mouth on the eyes' line is none.
    if down * MAX_STRETCH < between_eyes:
        raise AlignmentError(
            f"the mouth is {down:.1f} pixels from eyes {between_eyes:.1f} apart, a quarter is the least"
        )
    across = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = float(np.hypot(*across))
    if length < 0.5 * max(between_eyes, down):
        raise AlignmentError(
            f"eyes and mouth give an axis of {length:.1f} pixels, a face of this size at least "
            f"{0.5 * max(between_eyes, down):.1f}: it would be mirrored"
        )
    half = across * (max(2.0 * between_eyes, 1.8 * down) / length)
    centre = eyes + 0.1 * eye_to_mouth
    return Quad((float(centre[0]), float(centre[1])), (float(half[0]), float(half[1])))


def crop_face(pixels: Pixels, quad: Quad, size: int) -> Pixels:
    """Return the upright face, uint8 (size, size, 3), from a photo's pixels, filtered where that shrinks it.

    Beyond the photo's edge lies the mirrored photo, which becomes a blur with the distance. Raises
    AlignmentError where the crop lies wholly outside.
    """
    height, width = pixels.shape[:2]
    if not pixels.size or min(quad.bounds(width, height)[2:]) < 1:
        raise AlignmentError(f"the crop around {quad.centre} lies outside the {width} x {height} photo")
    face = resample(pixels, quad.from_crop(size), (size, size))
    beyond = _distance_beyond(quad.from_crop(size), size, (width, height)) / (quad.side * BEYOND_EDGE_FADE)
    if beyond.max() <= 0.0:
        return face
    weight = smoothstep(np.minimum(beyond, 1.0))[..., None]
    blurred = cv2.GaussianBlur(face, (0, 0), 0.03 * size)
    return np.rint(face + weight * (blurred.astype(np.float32) - face)).astype(np.uint8)


def resample(pixels: Pixels, matrix: Matrix, size: tuple[int, int]) -> Pixels:
    """Return the picture, `size` (width, height), whose points `matrix` (2, 3) takes to points of `pixels`.

    Enlarging is Lanczos interpolation. Shrinking averages what lies under each pixel, in three steps: whole
    factors as long as two or more remain, a warp to a finer grid, and a Lanczos filter from that grid. What
    lies outside `pixels` is mirrored.
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    part, offset = _part_under(pixels, matrix, size, scale)
    moved = matrix.copy()
    moved[:, 2] -= offset
    factor = max(1, int(scale / 2.0))
    if factor > 1 and min(part.shape[:2]) >= factor:
        height, width = part.shape[0] // factor, part.shape[1] // factor
        moved = np.diag([width / part.shape[1], height / part.shape[0]]) @ moved
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        scale /= factor
    finer = max(1, math.ceil(scale - 1e-6))
    # cv2 counts from the centres of pixels: half a pixel is added on one side of the map and taken off
    # on the other.
    centred = moved.copy()
    centred[:, :2] /= finer
    centred[:, 2] += centred[:, :2].sum(axis=1) * 0.5 - 0.5
    warped = cv2.warpAffine(
        part,
        centred,
        (size[0] * finer, size[1] * finer),
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    ).astype(np.uint8, copy=False)
    if finer == 1:
        return warped
    return np.asarray(Image.fromarray(warped).resize(size, Image.Resampling.LANCZOS))


def inverted(matrix: Matrix) -> Matrix:
    """Return the affine (2, 3) that undoes `matrix`."""
    return np.asarray(np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2], dtype=np.float64)


def smoothstep(fraction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return 0 to 1 with level ends for 0 to 1: 3 t^2 - 2 t^3."""
    return fraction * fraction * (np.float32(3.0) - np.float32(2.0) * fraction)


def _part_under(
    pixels: Pixels, matrix: Matrix, size: tuple[int, int], scale: float
) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return the area that a warp reads (cv2 takes sides up to 32,767 only), and where it begins."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [*size, 1]], dtype=np.float64) @ matrix.T
    reach = _KERNEL_REACH * max(1.0, scale)
    limits = np.array([pixels.shape[1], pixels.shape[0]])
    least = np.clip(np.floor(corners.min(axis=0) - reach), 0, limits - 1).astype(np.int64)
    most = np.clip(np.ceil(corners.max(axis=0) + reach), least + 1, limits).astype(np.int64)
    return pixels[least[1] : most[1], least[0] : most[0]], least


def _distance_beyond(matrix: Matrix, size: int, photo: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return how far outside the photo a crop's pixels lie, in pixels of the photo, (size, size)."""
    grid = np.arange(size, dtype=np.float64) + 0.5
    outside = np.zeros((size, size))
    for axis, length in enumerate(photo):
        place = matrix[axis, 0] * grid[None, :] + matrix[axis, 1] * grid[:, None] + matrix[axis, 2]
        outside = np.maximum(outside, np.maximum(-place, place - length))
    return outside.astype(np.float32)
