"""Draws portraits: what the camera's rays meet (`shape.py`) is painted, lit and laid over the background.

Parameters (`parameters.py`) come before; training and evaluation take the pictures and landmarks from here.
Every edge is drawn with the part of the pixel that it covers, so that every size samples one picture.
"""

import numpy as np
from numpy.typing import NDArray

from model.errors import ParameterError
from model.renderer.parameters import Attributes, Floats, Identity
from model.renderer.shape import (
    EYE_Y,
    MOUTH_Y,
    Hair,
    Head,
    Hit,
    Pose,
    bump,
    column,
    meet,
    on_skin,
    smooth,
)

SMALLEST, LARGEST = 16, 2048
# Above this the hairline is an arch, below it goes straight down.
TEMPLE_Y = 0.05
# As many pixels are drawn at once as keep the arrays in the processor's cache.
CHUNK = 12 * 64 * 64
DARK, WHITE, MOUTH, TEETH, TONGUE = (
    np.asarray(colour, np.float32)[:, None, None, None] ** 2
    for colour in (
        (0.10, 0.07, 0.06),
        (0.90, 0.88, 0.86),
        (0.24, 0.06, 0.07),
        (0.93, 0.91, 0.86),
        (0.66, 0.28, 0.28),
    )
)
# Light scatters in skin, red the farthest.
WRAP = np.asarray((0.38, 0.22, 0.16), np.float32)[:, None, None, None]


def render(identities: Identity, attributes: Attributes, size: int) -> NDArray[np.uint8]:
    """Return the portraits of identity i in attributes i, (n, size, size, 3) sRGB.

    Raises ParameterError where the counts differ, or the size is outside 16 to 2048.
    """
    check(identities, attributes)
    if not SMALLEST <= size <= LARGEST:
        raise ParameterError(f"size is {size}, it must be from {SMALLEST} to {LARGEST}")
    pictures = np.empty((len(identities), size, size, 3), np.uint8)
    middles = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    rows = min(size, CHUNK // size)
    count = max(CHUNK // size**2, 1)
    for first in range(0, len(identities), count):
        portraits = slice(first, first + count)
        for top in range(0, size, rows):
            part = draw(
                identities.rows(portraits),
                attributes.rows(portraits),
                middles,
                middles[top : top + rows],
                2 / size,
            )
            pictures[portraits, top : top + rows] = part.transpose(1, 2, 3, 0)
    return pictures


def landmarks(identities: Identity, attributes: Attributes, size: int) -> Floats:
    """Return (n, 5, 2): x and y in pixels of the viewer's left and right eye, the nose, the mouth's corners.

    They are where the points are, hidden or not. Raises ParameterError where the counts differ.
    """
    check(identities, attributes)
    eye, nose = identities.eye_distance, 0.155 * identities.nose_length
    corner_x, corner_y = mouth_corner(identities, attributes)
    x = np.stack((-eye, eye, 0 * eye, -corner_x, corner_x), axis=1)
    level = np.full_like(eye, EYE_Y)
    y = np.stack((level, level, nose, corner_y, corner_y), axis=1)
    seen = Pose.of(attributes).project(on_skin(Head(identities, attributes), x, y))
    return np.ascontiguousarray((seen.transpose(1, 2, 0) + 1) * np.float32(size / 2))


def check(identities: Identity, attributes: Attributes) -> None:
    """Raise ParameterError where the counts differ."""
    if len(identities) != len(attributes):
        raise ParameterError(f"there are {len(identities)} identities, but {len(attributes)} attributes")


def draw(
    identity: Identity, attributes: Attributes, columns: Floats, rows: Floats, pixel: float
) -> NDArray[np.uint8]:
    """Return (3, n, rows, columns) of the portraits, a pixel being so wide."""
    x, y = columns[None, :], rows[:, None]
    pose = Pose.of(attributes)
    start, direction = pose.rays(columns, rows)
    width = column(pixel / attributes.scale)
    light = Light(attributes, pose)
    head = Head(identity, attributes)
    skin = meet(head, start, direction, width)
    hair = meet(Hair(identity), start, direction, width)
    picture = background(attributes, x, y)
    locks, lock_paint = hair_paint(identity, light, hair, width)
    behind = (
        hair.coverage
        * column(identity.hair)
        * below(hair.points[1] - 0.30 - 1.2 * column(identity.hair_length), 0.06)
    )
    over(picture, 0.3 * lock_paint, behind)
    body(picture, identity, attributes, pose, light, x, y, pixel)
    over(picture, skin_paint(identity, attributes, light, skin, width), skin.coverage)
    over(picture, lock_paint, locks)
    glasses(picture, identity, light, start, direction, width)
    return np.asarray(np.sqrt(np.clip(picture, 0, 1)) * 255 + 0.5, np.uint8)


def over(picture: Floats, paint: Floats, coverage: Floats) -> None:
    """Lay paint over the picture where it covers."""
    picture += coverage * (paint - picture)


def below(distance: Floats, softness: Floats | float) -> Floats:
    """Return how much of a pixel is inside, at a distance from an edge this soft."""
    return np.asarray(np.clip(0.5 - distance / softness, 0, 1), np.float32)


def linear(colours: Floats) -> Floats:
    """Return sRGB colours (n, 3) as light, (3, n, 1, 1): a gamma of 2 is near enough, and fast."""
    return np.square(column(colours))


class Light:
    """The light on a portrait, its direction in the head's frame and in the camera's."""

    def __init__(self, attributes: Attributes, pose: Pose) -> None:
        self.camera = column(attributes.light)
        self.head = np.einsum("jin,jn->in", pose.rotation, attributes.light.T)[:, :, None, None]
        half = self.head + pose.rotation[2][:, :, None, None]
        self.half = half / np.sqrt((half * half).sum(axis=0))
        self.strength = column(attributes.brightness)
        self.ambient = column(attributes.ambient)

    def on(self, normals: Floats, wrap: Floats | float, direction: Floats | None = None) -> Floats:
        """Return the light that a surface sends back."""
        facing = (normals * (self.head if direction is None else direction)).sum(axis=0)
        direct = np.clip((facing + wrap) * (1 / (1 + wrap)), 0, 1)
        return np.asarray(self.strength * direct + self.ambient * (0.8 - 0.3 * normals[1]), np.float32)

    def shine(self, normals: Floats, doublings: int) -> Floats:
        """Return the highlight on a surface, sharper with each doubling of its exponent."""
        facing = np.clip((normals * self.half).sum(axis=0), 0, 1)
        for _ in range(doublings):
            facing = facing * facing
        return np.asarray(self.strength * facing, np.float32)


def background(attributes: Attributes, x: Floats, y: Floats) -> Floats:
    """Return a soft gradient between two colours."""
    angle = column(attributes.background_angle)
    along = smooth(-1.1, 1.1, np.cos(angle) * x + np.sin(angle) * y)
    first, last = linear(attributes.background), linear(attributes.background_end)
    return first + along * (last - first)


def body(
    picture: Floats,
    identity: Identity,
    attributes: Attributes,
    pose: Pose,
    light: Light,
    x: Floats,
    y: Floats,
    pixel: float,
) -> None:
    """Draw neck and shoulders: flat shapes below the head, lit as if round."""
    points = np.zeros((3, len(identity), 2), np.float32)
    points[:, :, 0] = np.asarray((0, 0.40, -0.25), np.float32)[:, None]
    points[1, :, 1], points[2, :, 1] = 0.62 + identity.chin, 0.35
    nape, chin = pose.project(points).transpose(2, 0, 1)
    middle = column(nape[0])
    half = column(identity.neck * attributes.scale)
    away = x - middle
    normals = np.zeros((3, *np.broadcast_shapes(away.shape, y.shape)), np.float32)
    normals[0] = np.clip(away / (half * 1.08), -1, 1)
    normals[2] = np.sqrt(1 - normals[0] ** 2)
    shade = 0.35 + 0.65 * smooth(0.0, 0.32, y - column(chin[1]) + 0.5 * away * away)
    neck = linear(identity.skin) * light.on(normals, WRAP, light.camera) * shade
    flared = half * (1 + 1.6 * np.clip(y - 0.72, 0, 1) ** 2)
    over(
        picture,
        neck,
        below(np.maximum(np.abs(away) - flared, column(nape[1]) + 0.2 * (away / half) ** 4 - y), pixel),
    )
    shoulders = 0.80 + 0.20 * np.abs(away) ** 1.5 - y
    scoop = half * 0.9 - np.sqrt(away**2 + (1.5 * (y - 0.72)) ** 2)
    normals[0] *= 0.5
    normals[1] = -0.25 + 0.4 * (y - 0.8)
    cloth = (
        linear(attributes.shirt)
        * light.on(normals, 0.1, light.camera)
        * (0.6 + 0.4 * smooth(0, 0.06, -scoop))
    )
    over(picture, cloth, below(np.maximum(shoulders, scoop), pixel))


def skin_paint(identity: Identity, attributes: Attributes, light: Light, hit: Hit, width: Floats) -> Floats:
    """Return the lit face with all that is painted on it: eyes, brows, lips, beard."""
    x, y, z = hit.points
    side = np.sign(x)
    away = np.abs(x)
    skin = linear(identity.skin)
    age, smile = column(identity.age), column(attributes.smile)
    front = np.clip(z * 5, 0, 1)
    paint = np.broadcast_to(skin, (3, *x.shape)).copy()
    # Blood shows in cheeks, nose and ears; the folds of skin darken what they keep from the light.
    blood = bump(away - 0.30, y - 0.16, 0.13, 0.10) + 0.6 * bump(x, y - 0.15, 0.08, 0.06) + 0.5 * (1 - front)
    paint *= (
        1 - column(identity.blush) * blood * np.asarray((0.04, 0.26, 0.22), np.float32)[:, None, None, None]
    )
    fold = 0.085 + 0.9 * (y - 0.18)
    folds = (0.5 * age + 0.30 * np.maximum(smile, 0)) * bump(away - fold, y - 0.23, 0.022, 0.06)
    nose_y = 0.155 * column(identity.nose_length)
    nose_x = column(identity.nose_width)
    folds += 0.18 * bump(x, y - nose_y - 0.075, 0.08, 0.02)
    folds += 0.5 * bump(away - 0.045 * nose_x, y - nose_y - 0.048, 0.024, 0.013)
    folds += (0.15 + 0.35 * age) * bump(away - column(identity.eye_distance), y - EYE_Y - 0.075, 0.07, 0.018)
    paint *= 1 - folds * front
    paint *= 1 - 0.35 * column(identity.hair) * smooth(-0.02, 0.10, hairline(identity, x, y + 0.06, z))
    beard(paint, identity, attributes, away, y, z, front)
    brows(paint, identity, attributes, away, y, front, width)
    shine = np.full_like(x, 0.10)
    lips(paint, shine, identity, attributes, x, y, front, width)
    lit = paint * light.on(hit.normals, WRAP)
    lit += shine * light.shine(hit.normals, 4) * (0.3 + 0.7 * skin.mean(axis=0))
    eyes(lit, identity, attributes, light, side, away, y, front, width)
    return lit


def beard(
    paint: Floats,
    identity: Identity,
    attributes: Attributes,
    away: Floats,
    y: Floats,
    z: Floats,
    front: Floats,
) -> None:
    """Paint beard and moustache in the hair's colour, a little darker."""
    hair = 0.7 * linear(identity.hair_colour)
    edge = MOUTH_Y + 0.075 - 1.5 * away * away * smooth(0.1, 0.6, away)
    over(paint, hair, 0.92 * column(identity.beard) * below(edge - y, 0.09) * smooth(-0.12, 0.0, z))
    reach = column(identity.mouth_width) * (1.05 + 0.2 * np.maximum(column(attributes.smile), 0))
    line = (
        MOUTH_Y - 0.052 + 0.07 * (away / reach) ** 2 - 0.02 * column(attributes.smile) * (away / reach) ** 2
    )
    whiskers = np.maximum(np.abs(y - line) - 0.030, away - reach)
    over(paint, hair, 0.92 * column(identity.moustache) * below(whiskers, 0.035) * front)


def brows(
    paint: Floats,
    identity: Identity,
    attributes: Attributes,
    away: Floats,
    y: Floats,
    front: Floats,
    width: Floats,
) -> None:
    """Paint the brows: arcs that thin out to the temples."""
    across = away - column(identity.eye_distance)
    raised = column(attributes.brows)
    inner = np.clip(0.5 - across * 4, 0, 1)
    line = EYE_Y - column(identity.brow_height) - 0.028 * raised + 0.035 * np.maximum(-raised, 0) * inner
    line = line + column(identity.brow_slant) * across - column(identity.brow_arch) * (1 - (across * 7) ** 2)
    thickness = column(identity.brow_thickness) * (1 - 0.6 * np.clip(across * 4 + 0.3, 0, 1))
    edge = np.maximum(np.abs(y - line) - thickness, np.abs(across - 0.012) - 0.135)
    colour = 0.55 * linear(identity.hair_colour) + 0.05 * linear(identity.skin)
    over(paint, colour, 0.9 * below(edge, width + 0.012) * front)


def mouth_corner(identities: Identity, attributes: Attributes) -> tuple[Floats, Floats]:
    """Return x and y (n,) of the mouth's corner in the head's frame."""
    smile = attributes.smile
    x = identities.mouth_width * (1 + 0.20 * np.maximum(smile, 0) - 0.08 * attributes.mouth_open)
    return x, MOUTH_Y - 0.028 * smile + 0.02 * attributes.mouth_open


def lips(
    paint: Floats,
    shine: Floats,
    identity: Identity,
    attributes: Attributes,
    x: Floats,
    y: Floats,
    front: Floats,
    width: Floats,
) -> None:
    """Paint lips, and between them teeth and tongue; lips shine more than skin."""
    corner_x, corner_y = (column(values) for values in mouth_corner(identity, attributes))
    smile, gape = column(attributes.smile), column(attributes.mouth_open)
    bend = np.minimum((x / corner_x) ** 2, 1.5)
    arch = 1 - bend
    middle = corner_y + 0.045 * smile * arch
    top = middle - 0.012 * gape * arch
    bottom = middle + 0.14 * gape * np.sqrt(np.maximum(arch, 0))
    bow = 1 - 0.30 * bump(x, x, 0.04, 9.0)
    upper = y - (top - column(identity.lip_upper) * arch * bow)
    lower = bottom + column(identity.lip_lower) * arch - y
    colour = linear(identity.lip_colour)
    within = below(bend - 1, 0.08) * front
    lip = below(-np.minimum(upper, lower), width + 0.008) * within
    over(paint, colour * (0.72 + 0.28 * smooth(-0.01, 0.015, y - middle)), lip)
    shine += 0.25 * lip
    inside = below(-np.minimum(y - top, bottom - y), width + 0.003) * within * np.clip(gape * 10, 0, 1)
    over(paint, MOUTH, inside)
    over(paint, TONGUE * 0.6, inside * below(-(y - middle - 0.085 * gape - 0.02 + 0.4 * x * x), 0.03))
    teeth = below(y - top - 0.042 * np.minimum(gape * 2, 1) * (1 - 0.5 * bend), width + 0.006)
    over(paint, TEETH * (1 - 0.5 * np.minimum(bend, 1)), inside * teeth)
    shut = below(np.abs(y - middle) - 0.004, width + 0.006) * (1 - np.clip(gape * 10, 0, 1))
    over(paint, 0.25 * colour, 0.8 * shut * within)
    shine *= 1 - inside


def eyes(
    lit: Floats,
    identity: Identity,
    attributes: Attributes,
    light: Light,
    side: Floats,
    away: Floats,
    y: Floats,
    front: Floats,
    width: Floats,
) -> None:
    """Paint the eyes between their lids: white, iris, pupil, highlight, lashes, and the lid's crease."""
    size = column(identity.eye_size)
    across = (away - column(identity.eye_distance)) / size
    down = (y - EYE_Y) / size + column(identity.eye_slant) * across
    fine = width / size
    arch = np.maximum(1 - across * across * (0.85 + 0.15 * across * across), -0.5)
    height = column(identity.eye_height)
    rim = 0.66 * height * arch * (1 - 0.25 * np.maximum(column(attributes.smile), 0))
    lid = rim - 1.68 * height * arch * column(attributes.eyes_open)
    lightness = light.ambient + 0.75 * light.strength
    # The crease above and the lashes' shade.
    crease = np.abs(down - lid + 0.30 * height + 0.10) - 0.02
    over(lit, 0.45 * lit, 0.6 * below(crease, fine + 0.10) * below(np.abs(across) - 0.95, 0.4) * front)
    opened = below(np.maximum(lid - down, down - rim), fine + 0.02) * front
    shown = np.clip(column(attributes.eyes_open) * 6, 0, 1) * below(np.abs(across) - 1, 0.1)
    opened *= shown
    look_x = across - 0.42 * column(attributes.gaze_x) * side
    look_y = down - 0.26 * column(attributes.gaze_y)
    away_from = np.sqrt(look_x * look_x + look_y * look_y)
    round_ = 1 - 0.35 * np.minimum(across * across, 1) - 0.45 * below(down - lid - 0.10, 0.35)
    over(lit, WHITE * lightness * round_, opened)
    iris = opened * below(away_from - 0.45, fine + 0.03)
    glow = 0.55 + 0.9 * smooth(0.0, 0.5, look_y + 0.25)
    colour = linear(identity.eye_colour)
    over(
        lit,
        colour * lightness * glow * (1 - 0.75 * smooth(0.31, 0.46, away_from)) * (0.6 + 0.4 * round_),
        iris,
    )
    over(lit, 0.3 * DARK, opened * below(away_from - 0.19, fine + 0.03))
    glint_x = look_x - 0.17 * np.clip(light.head[0] * 1.5, -1, 1) * side
    glint = np.sqrt(glint_x * glint_x + (look_y + 0.15) ** 2)
    over(lit, np.float32(0.95) + 0 * DARK, opened * 0.9 * below(glint - 0.085, fine + 0.04))
    lash = np.abs(down - lid) - 0.055 * (1 + 0.3 * across)
    over(lit, DARK * 0.7, 0.9 * below(lash, fine + 0.05) * below(np.abs(across) - 1.03, 0.12) * front)
    lash = np.abs(down - rim) - 0.01
    over(
        lit,
        DARK + 0.3 * linear(identity.skin),
        0.5 * below(lash, fine + 0.06) * below(np.abs(across) - 1, 0.2) * front,
    )


def hairline(identity: Identity, x: Floats, y: Floats, z: Floats) -> Floats:
    """Return how far a point is in the hair (positive) or in the face's opening (negative)."""
    long = np.minimum(column(identity.hair_length) * 4, 1)
    half = column(identity.head_width) * (0.93 - 0.11 * long)
    top = column(identity.hair_line) + column(identity.hair_part) * x
    across = (x / half) ** 2
    down = np.clip((y - TEMPLE_Y) / (top - TEMPLE_Y), 0, 9)
    down = down * down
    opening = np.sqrt(np.sqrt(across * across + down * down * down)) - 1
    return np.asarray(np.maximum(0.45 * opening, -0.22 - z), np.float32)


def hair_paint(identity: Identity, light: Light, hit: Hit, width: Floats) -> tuple[Floats, Floats]:
    """Return how much hair covers the face, and the lit hair."""
    x, y, z = hit.points
    length = column(identity.hair_length)
    ends = y - np.where(length > 0, 9, -0.03 + 0.9 * np.clip(-z - 0.16, 0, 0.45))
    cover = below(np.maximum(-hairline(identity, x, y, z), ends), width + 0.02) * hit.coverage
    around = np.arctan2(x - 0.3 * column(identity.hair_part), z + 0.25)
    strands = np.sin(23 * around + 2 * np.sin(3 * y)) + 0.6 * np.sin(41 * around + 5 * y)
    tone = 1 + 0.14 * strands * np.clip(1.2 - 12 * width, 0, 1)
    colour = linear(identity.hair_colour)
    lit = colour * tone * (0.75 + 0.25 * smooth(0.9, -0.4, y)) * light.on(hit.normals, 0.15)
    lit = lit + (0.06 + 0.35 * colour) * light.shine(hit.normals, 3) * 0.5 * tone
    return cover * column(identity.hair), lit


def glasses(
    picture: Floats, identity: Identity, light: Light, start: Floats, direction: Floats, width: Floats
) -> None:
    """Draw the glasses' frame in its plane before the eyes, and a trace of glass."""
    along = (0.53 - start[2]) / direction[2]
    x, y = start[0] + along * direction[0], start[1] + along * direction[1] - EYE_Y - 0.015
    scale, roundness = column(identity.glasses_size), column(identity.glasses_round)
    away = np.abs(x)
    across, down = 0.165 * scale, (0.12 + 0.035 * roundness) * scale
    corner = 0.05 + 0.10 * roundness * scale
    over_x = np.abs(away - column(identity.eye_distance) - 0.01) - across + corner
    over_y = np.abs(y) - down + corner
    lens = (
        np.sqrt(np.maximum(over_x, 0) ** 2 + np.maximum(over_y, 0) ** 2)
        + np.minimum(np.maximum(over_x, over_y), 0)
        - corner
    )
    bridge = np.maximum(np.abs(y + 0.03 - 0.4 * x * x) - 0.010, away - 0.09)
    rim = np.minimum(np.abs(lens) - 0.013, np.maximum(bridge, -lens))
    worn = column(identity.glasses)
    over(picture, picture * 0.85 + 0.06, worn * below(lens, width) * 0.6)
    colour = linear(identity.glasses_colour) * (0.4 + 0.6 * light.strength)
    over(picture, colour + 0.03, worn * below(rim, width))
