"""The solid of a head and of its hair as signed distances, and how rays of the camera meet them.

Parameters (`parameters.py`) come before, painting what the rays meet (`picture.py`) comes after. All
points are in the head's own frame: the origin inside the head, a little below the eyes, x to the viewer's
right, y down, z out of the face. Points are (3, n, h, w), distances (n, h, w), single precision throughout.
"""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.renderer.parameters import Attributes, Floats, Identity

# The camera stands this far before the picture's plane: a portrait lens.
CAMERA = 6.0
# Rays start this far before it: no nose reaches there.
FRONT = 0.9
# Heads turn about this point, so that a turned face stays in the middle as in an aligned crop.
PIVOT = (0.0, 0.05, 0.2)
EYE_Y, MOUTH_Y = -0.04, 0.30
# Distances are underestimated, more so beside the head: steps are stretched, and may return. Where distances
# are overestimated, the last ends the swinging to and fro.
STRETCHES, ROUNDS = (1.5, 1.5, 1.5, 0.7), 7
# A ray has met the surface within this part of a pixel, and missed the head after this way.
NEAR, FAR = 0.05, 1.6
# Surfaces are shaded no finer than this, and no finer than most of a pixel.
FINEST = 0.012


@dataclass(frozen=True)
class Pose:
    """Rotation (3, 3, n) from the head's frame to the camera's, shift (3, n) and scale (n,)."""

    rotation: Floats
    shift: Floats
    scale: Floats

    @classmethod
    def of(cls, attributes: Attributes) -> "Pose":
        """Return the pose of each portrait: turned by yaw, then pitch, then roll."""
        yaw, pitch, roll = attributes.yaw, attributes.pitch, attributes.roll
        zero, one = np.zeros_like(yaw), np.ones_like(yaw)
        turn = np.array(
            [[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]]
        )
        nod = np.array(
            [[one, zero, zero], [zero, np.cos(pitch), np.sin(pitch)], [zero, -np.sin(pitch), np.cos(pitch)]]
        )
        tilt = np.array(
            [[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]]
        )
        rotation = np.einsum("ijn,jkn,kln->iln", tilt, nod, turn)
        return cls(rotation, np.stack((attributes.x, attributes.y, zero)), attributes.scale)

    def project(self, points: Floats) -> Floats:
        """Return where points (3, n, k) of the head appear, (2, n, k) in half pictures from the middle."""
        pivot = np.asarray(PIVOT, np.float32)[:, None, None]
        seen = np.einsum("ijn,jnk->ink", self.rotation, points - pivot) + pivot
        seen = seen * self.scale[:, None] + self.shift[..., None]
        return np.asarray(seen[:2] * (CAMERA / (CAMERA - seen[2])), np.float32)

    def rays(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return start and direction (3, n, h, w) in the head's frame of rays through x (w,) and y (h,)."""
        pivot = np.asarray(PIVOT, np.float32)[:, None, None, None]
        columns, rows = np.meshgrid(x, y)
        direction = np.stack((columns, rows, np.full_like(columns, -CAMERA))) / np.float32(CAMERA)
        inverse = self.rotation.transpose(1, 0, 2)
        camera = np.zeros((3, len(self.scale), 1), np.float32)
        camera[2] = CAMERA
        start = np.einsum(
            "ijn,jnk->ink", inverse, (camera - self.shift[..., None]) / self.scale[:, None] - pivot[..., 0]
        )
        turned = np.einsum("ijn,jhw->inhw", inverse, direction) / self.scale[:, None, None]
        start = start[..., None] + pivot
        # From the camera to just before the face.
        return start + turned * np.float32(CAMERA - FRONT), turned


def column(values: Floats) -> Floats:
    """Return values (n,) as (n, 1, 1), or colours (n, 3) as (3, n, 1, 1)."""
    return values[:, None, None] if values.ndim == 1 else values.T[:, :, None, None]


def smooth(low: float, high: float, values: Floats) -> Floats:
    """Return 0 below `low`, 1 above `high` (or the reverse), smooth between."""
    part = np.clip((values - low) * (1 / (high - low)), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def joined(first: Floats, second: Floats, radius: float) -> Floats:
    """Return the distance to a union, rounded where both meet (Quilez, smooth minimum)."""
    part = np.maximum(radius - np.abs(first - second), 0)
    return np.asarray(np.minimum(first, second) - part * part * (0.25 / radius), np.float32)


def bump(across: Floats, down: Floats, width: float, height: float) -> Floats:
    """Return a soft bump of height 1."""
    return np.exp(-((across * (1 / width)) ** 2) - (down * (1 / height)) ** 2)


def ellipsoid(x: Floats, y: Floats, z: Floats, radii: tuple[Floats | float, ...]) -> Floats:
    """Return the distance to an ellipsoid about the origin, nearly (Quilez)."""
    scale_x, scale_y, scale_z = (1 / radius**2 for radius in radii)
    x, y, z = x * x * scale_x, y * y * scale_y, z * z * scale_z
    inside = np.sqrt(x + y + z)
    x *= scale_x
    y *= scale_y
    z *= scale_z
    return np.asarray(inside * (inside - 1) / np.sqrt(x + y + z + 1e-6), np.float32)


class Solid(ABC):
    """A solid of each portrait; its attributes are arrays (n, 1, 1)."""

    @abstractmethod
    def distance(self, points: Floats) -> Floats:
        """Return the signed distance (n, h, w) of points (3, n, h, w) to the surface, inside negative."""

    @abstractmethod
    def bounds(self) -> tuple[Floats, Floats]:
        """Return centre and radii (3, n, 1, 1) of an ellipsoid about the solid."""

    def entry(self, start: Floats, direction: Floats) -> Floats:
        """Return the way (n, h, w) along rays to the ellipsoid about the solid, FAR where they miss it."""
        centre, radii = self.bounds()
        start, direction = (start - centre) / radii, direction / radii
        square = (direction * direction).sum(axis=0)
        half = (start * direction).sum(axis=0) / square
        inside = half * half - ((start * start).sum(axis=0) - 1) / square
        return np.where(inside > 0, -half - np.sqrt(np.maximum(inside, 0)), np.float32(FAR))

    def rows(self, portraits: NDArray[np.intp]) -> Self:
        """Return the solids of the chosen portraits, in the order chosen."""
        copied = copy(self)
        for name, values in vars(self).items():
            setattr(copied, name, values[portraits])
        return copied


class Head(Solid):
    """The skin's surface: skull, face, ears and nose, with the expression in it."""

    def __init__(self, identity: Identity, attributes: Attributes) -> None:
        self.width, self.height = column(identity.head_width), column(identity.head_height)
        self.jaw, self.cheeks = column(identity.jaw), column(identity.cheeks)
        self.drop = 0.07 * column(attributes.mouth_open)
        self.chin = column(identity.chin) + self.drop
        self.smile = np.maximum(column(attributes.smile), 0)
        self.eye = column(identity.eye_distance)
        self.nose_x = 1 / column(identity.nose_width)
        self.nose_y = 0.155 * column(identity.nose_length)
        self.nose_z = 0.13 * column(identity.nose_size)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance to the skin."""
        x, y, z = np.abs(points[0]), points[1], points[2]
        skull = ellipsoid(x, y + 0.27, z + 0.12, (self.width, 0.60 * self.height, 0.60))
        narrowed = x / (1 + (self.jaw - 1) * smooth(-0.1, 0.6, y))
        face = ellipsoid(
            narrowed,
            y - 0.10 - 0.5 * self.chin,
            z - 0.02,
            ((0.9 + 0.035 * self.cheeks) * self.width, 0.55 + 0.5 * self.chin, 0.47),
        )
        head = joined(skull, face, 0.16)
        front = np.clip(z * 4, 0, 1)
        relief = 0.042 * bump(x - self.eye, y - (EYE_Y - 0.015), 0.13, 0.08)
        relief -= 0.026 * bump(x - self.eye, y - EYE_Y, 0.085, 0.05)
        relief -= 0.022 * bump(x - 0.20, y - (EYE_Y - 0.125), 0.16, 0.055)
        relief -= (0.022 + 0.028 * self.cheeks + 0.022 * self.smile) * bump(x - 0.29, y - 0.14, 0.13, 0.11)
        relief -= 0.030 * bump(x, y - MOUTH_Y, 0.15, 0.10)
        relief -= 0.035 * bump(x, y - 0.54 - self.chin, 0.13, 0.09)
        head += relief * front
        ear = ellipsoid(x - self.width, y - 0.07, z + 0.14, (0.055, 0.145, 0.085))
        return joined(joined(head, ear, 0.05), self.nose(x, y, z), 0.075)

    def bounds(self) -> tuple[Floats, Floats]:
        """Return an ellipsoid that touches the ears, the chin and the tip of the nose."""
        flat = np.zeros_like(self.width)
        longer = np.maximum(self.chin, 0)
        radii = (
            self.width + 0.13,
            0.93 * np.maximum(self.height, 1) + 0.8 * longer,
            flat + 0.70 + self.nose_z,
        )
        return np.stack((flat, flat - 0.05 + 0.5 * longer, flat - 0.05)), np.stack(radii)

    def nose(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Return the distance to the nose: a cone from the bridge to the tip, and its wings."""
        down, out = self.nose_y + 0.07, self.nose_z
        x, z = x * self.nose_x, z - 0.455
        along = np.clip(((y + 0.07) * down + z * out) / (down * down + out * out), 0, 1)
        ridge = np.sqrt(x * x + (y + 0.07 - along * down) ** 2 + (z - along * out) ** 2) - (
            0.022 + 0.040 * along
        )
        wings = np.sqrt((x - 0.062) ** 2 + (y - self.nose_y - 0.012) ** 2 + (z - 0.035) ** 2) - 0.040
        return joined(ridge, wings, 0.05) / np.maximum(self.nose_x, 1)


class Hair(Solid):
    """The hair's outer surface: the skull's, thicker, and drawn down as far as the hair is long."""

    def __init__(self, identity: Identity) -> None:
        volume = column(identity.hair_volume)
        self.curl = column(identity.hair_curl)
        self.fall = column(identity.hair_length)
        sides = volume * (0.4 + np.minimum(self.fall, 0.4) + 0.4 * self.curl)
        self.width = column(identity.head_width) + 0.01 + sides
        self.height = 0.61 * column(identity.head_height) + volume
        self.depth = 0.61 + volume
        self.flare = 0.24 * np.minimum(self.fall, 0.6)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distance to the hair's outer surface."""
        x, y, z = points
        below = y + 0.27
        kept = below - np.clip(below, 0, self.fall)
        widened = 1 + self.flare * np.clip(below, 0, 1) ** 2
        surface = ellipsoid(x / widened, kept, z + 0.14, (self.width, self.height, self.depth))
        curls = np.sin(13 * x + 4 * y) * np.sin(15 * y + 1) * np.sin(14 * z + 2)
        return np.asarray(surface + 0.022 * self.curl * curls, np.float32)

    def bounds(self) -> tuple[Floats, Floats]:
        """Return an ellipsoid that is wider in the middle, so that it is wide enough at the ends."""
        height = self.height + 0.5 * self.fall + 0.03
        wider = (1.1 + self.flare) / np.sqrt(1 - (0.5 * self.fall / height) ** 2)
        flat = np.zeros_like(height)
        radii = ((self.width + 0.03) * wider, height, (self.depth + 0.03) * wider)
        return np.stack((flat, flat - 0.27 + 0.5 * self.fall, flat - 0.14)), np.stack(radii)


@dataclass(frozen=True)
class Hit:
    """What rays meet: points (3, n, h, w), outward normals (3, n, h, w), coverage (n, h, w) from 0 to 1."""

    points: Floats
    normals: Floats
    coverage: Floats


def meet(solid: Solid, start: Floats, direction: Floats, pixel: Floats) -> Hit:
    """Return where rays meet a solid, or pass nearest; pixels (n, 1, 1) wide are covered in part at its edge.

    Sphere tracing (Hart, 1996), over-relaxed, to the surface half a pixel inside, beyond which a pixel is
    fully covered. Only rays that pass near the solid, and have not met it yet, are followed.
    """
    pixels = direction[0, 0].size
    along = solid.entry(start, direction)
    gap, nearest_along = np.zeros_like(along), np.zeros_like(along)
    nearest = np.full_like(along, FAR)
    tracks = (along, gap, nearest_along, nearest)
    way = np.flatnonzero(along < FAR)
    for _ in range(ROUNDS):
        rays = [chosen(values, way) for values in tracks]
        width = pixel[way // pixels]
        march(solid.rows(way // pixels), chosen(start, way), chosen(direction, way), width, *rays)
        for values, followed in zip(tracks, rays, strict=True):
            np.put(values, way, followed)
        way = way[((np.abs(rays[1]) > NEAR * width) & (rays[0] < FAR)).ravel()]
    gap[along >= FAR] = FAR
    # A ray that grazes the nose goes on to the cheek: where it ends counts, if it ends at the surface.
    met = gap < NEAR * pixel
    nearest, nearest_along = np.where(met, gap, nearest), np.where(met, along, nearest_along)
    coverage = np.clip(1 + NEAR - nearest / pixel, 0, 1)
    points = start + nearest_along * direction
    normals = -direction
    covered = np.flatnonzero(coverage)
    turned = facing(
        solid.rows(covered // pixels),
        chosen(points, covered),
        chosen(direction, covered),
        np.maximum(0.7 * pixel, FINEST)[covered // pixels],
    )
    normals.reshape(3, -1)[:, covered] = turned[..., 0, 0]
    return Hit(points, normals, coverage)


def chosen(values: Floats, rays: NDArray[np.intp]) -> Floats:
    """Return values (..., n, h, w) of the chosen rays, numbered through all portraits, as (..., k, 1, 1)."""
    return values.reshape(*values.shape[:-3], -1).take(rays, axis=-1)[..., None, None]


def facing(solid: Solid, points: Floats, direction: Floats, reach: Floats) -> Floats:
    """Return the normals of points over such a reach; those at the rim are turned a little to the viewer."""
    here = solid.distance(points)
    moved = points.copy()
    normals = np.empty_like(points)
    for axis in range(3):
        moved[axis] += reach
        normals[axis] = solid.distance(moved) - here
        moved[axis] = points[axis]
    normals /= np.sqrt((normals * normals).sum(axis=0)) + 1e-6
    normals -= direction * (1.5 * np.maximum((normals * direction).sum(axis=0) + 0.3, 0))
    return np.asarray(normals / np.sqrt((normals * normals).sum(axis=0)), np.float32)


def march(
    solid: Solid,
    start: Floats,
    direction: Floats,
    pixel: Floats,
    along: Floats,
    gap: Floats,
    nearest_along: Floats,
    nearest: Floats,
) -> None:
    """Take some steps along rays, in place: `gap` is the distance at `along`, `nearest` the least outside."""
    for stretch in STRETCHES:
        along += stretch * gap
        np.add(solid.distance(start + along * direction), 0.5 * pixel, out=gap)
        nearer = (gap > 0) & (gap < nearest)
        np.copyto(nearest, gap, where=nearer)
        np.copyto(nearest_along, along, where=nearer)


def on_skin(head: Head, x: Floats, y: Floats) -> Floats:
    """Return the points (3, n, k) of the skin straight before (x, y) of the head's frame, (n, k) each."""
    start = np.stack((x, y, np.full_like(x, 0.9)))[:, :, None]
    direction = np.zeros_like(start)
    direction[2] = -1
    return meet(head, start, direction, np.full((len(x), 1, 1), 1e-3, np.float32)).points[:, :, 0]
