"""The parameters of rendered portraits, and their sampling: `Identity` says who, `Attributes` says how.

Rendering (`picture.py`) comes after. Lengths are in half pictures: a face from the front spans about 1.1,
its eyes 0.48 apart; x goes to the right, y down, z to the viewer.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.errors import ParameterError

# Single precision all through: `Batch` checks it where they come in.
Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.intp] | slice
Seed = int | tuple[int, ...]


class Batch:
    """Frozen dataclasses of arrays that share their first length: a row is a portrait."""

    def __post_init__(self) -> None:
        """Raise ParameterError where lengths differ, or a value is not a finite float32."""
        for name, values in self.arrays().items():
            if values.dtype != np.float32 or not np.isfinite(values).all():
                raise ParameterError(f"{name} has a value that is no finite float32")
            if len(values) != len(self):
                raise ParameterError(f"{name} has {len(values)} rows, others have {len(self)}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))

    def arrays(self) -> dict[str, Floats]:
        """Return the parameters by name, (n,) or (n, 3) each."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def rows(self, chosen: Rows) -> Self:
        """Return the chosen rows, in the order chosen."""
        return type(self)(**{name: values[chosen] for name, values in self.arrays().items()})


@dataclass(frozen=True)
class Identity(Batch):
    """Who is shown: (n,) each, colours (n, 3) as sRGB from 0 to 1."""

    head_width: Floats  # half width at the temples
    head_height: Floats  # 1 is usual, as for all below that are not lengths
    jaw: Floats  # width of the jaw as part of the face's
    chin: Floats  # added length
    cheeks: Floats  # -1 hollow to 1 full
    neck: Floats  # half width
    skin: Floats
    blush: Floats  # 0 to 1
    age: Floats  # 0 to 1: the folds beside nose and mouth, under the eyes
    eye_distance: Floats  # from the middle to an eye's centre
    eye_size: Floats  # half width
    eye_height: Floats  # opening as part of the half width
    eye_slant: Floats  # positive: outer corners up
    eye_colour: Floats
    brow_height: Floats  # above the eye
    brow_thickness: Floats
    brow_arch: Floats
    brow_slant: Floats
    nose_length: Floats
    nose_width: Floats
    nose_size: Floats  # how far it stands out
    mouth_width: Floats  # half width
    lip_upper: Floats  # thickness
    lip_lower: Floats
    lip_colour: Floats
    hair: Floats  # 0 bald to 1
    hair_colour: Floats
    hair_length: Floats  # how far it falls below the temples
    hair_volume: Floats  # thickness above the skull
    hair_line: Floats  # y of its edge on the forehead
    hair_part: Floats  # tilt of that edge
    hair_curl: Floats  # 0 to 1
    beard: Floats  # 0 to 1
    moustache: Floats  # 0 to 1
    glasses: Floats  # 0 or 1
    glasses_size: Floats
    glasses_round: Floats  # 0 boxes to 1 circles
    glasses_colour: Floats


@dataclass(frozen=True)
class Attributes(Batch):
    """How a portrait shows its identity: (n,) each, (n, 3) where said."""

    yaw: Floats  # radians, positive: nose to the right of the picture
    pitch: Floats  # radians, positive: nose down
    roll: Floats  # radians, positive: clockwise
    x: Floats  # position of the head
    y: Floats
    scale: Floats
    mouth_open: Floats  # 0 to 1
    smile: Floats  # -1 to 1
    eyes_open: Floats  # 0 shut to 1.2 wide
    gaze_x: Floats  # -1 to 1, positive: to the right
    gaze_y: Floats  # -1 to 1, positive: down
    brows: Floats  # -1 frown to 1 raised
    light: Floats  # (n, 3) unit vector to the light
    brightness: Floats  # of the light
    ambient: Floats  # of the light from all around
    background: Floats  # (n, 3) colour
    background_end: Floats  # (n, 3) colour at the gradient's other end
    background_angle: Floats  # radians
    shirt: Floats  # (n, 3) colour


SKINS = (
    (0.97, 0.84, 0.76), (0.94, 0.78, 0.68), (0.90, 0.72, 0.60), (0.83, 0.63, 0.49),
    (0.74, 0.54, 0.40), (0.60, 0.41, 0.29), (0.46, 0.30, 0.21), (0.34, 0.22, 0.16),
)  # fmt: skip
HAIRS = (
    (0.08, 0.07, 0.07), (0.16, 0.10, 0.07), (0.30, 0.18, 0.10), (0.44, 0.27, 0.14), (0.66, 0.47, 0.26),
    (0.86, 0.72, 0.46), (0.62, 0.25, 0.10), (0.50, 0.48, 0.47), (0.86, 0.85, 0.83),
)  # fmt: skip
EYES = (
    (0.22, 0.13, 0.08), (0.38, 0.22, 0.10), (0.50, 0.36, 0.16), (0.33, 0.45, 0.25), (0.25, 0.50, 0.45),
    (0.30, 0.48, 0.68), (0.45, 0.58, 0.66),
)  # fmt: skip
FRAMES = (
    (0.05, 0.05, 0.06),
    (0.30, 0.14, 0.07),
    (0.60, 0.60, 0.62),
    (0.70, 0.52, 0.22),
    (0.15, 0.18, 0.40),
    (0.50, 0.06, 0.10),
)


class Sampler:
    """Draws parameters of n portraits from one generator, in the order asked."""

    def __init__(self, seed: Seed, count: int) -> None:
        if count < 1:
            raise ParameterError(f"count is {count}, it must be at least 1")
        self.count = count
        self.generator = np.random.default_rng(seed)

    def between(self, least: float, most: float) -> Floats:
        """Return values (n,) spread evenly."""
        return self.generator.uniform(least, most, self.count).astype(np.float32)

    def around(self, middle: float, spread: float, most: float = 2.0) -> Floats:
        """Return values (n,) spread normally, cut at so many spreads from the middle."""
        values = np.clip(self.generator.standard_normal(self.count), -most, most)
        return (middle + spread * values).astype(np.float32)

    def chance(self, probability: Floats | float) -> Floats:
        """Return 1 with the given probability, else 0, as (n,)."""
        return (self.generator.random(self.count) < probability).astype(np.float32)

    def colour(self, palette: tuple[tuple[float, float, float], ...], spread: float) -> Floats:
        """Return colours (n, 3) of a palette, varied a little in lightness and tint."""
        chosen = np.asarray(palette)[self.generator.integers(len(palette), size=self.count)]
        lightness = self.generator.normal(0, spread, (self.count, 1))
        tint = self.generator.normal(0, spread / 3, (self.count, 3))
        return np.asarray(np.clip(chosen * np.exp(lightness + tint), 0.02, 0.98), np.float32)


def sample_identities(seed: Seed, count: int) -> Identity:
    """Return `count` identities, the same for the same seed."""
    draw = Sampler(seed, count)
    skin = draw.colour(SKINS, 0.05)
    beardless = 1 - draw.chance(0.4)
    long = draw.chance(0.2 + 0.5 * beardless)
    hair_colour = draw.colour(HAIRS, 0.12)
    curl = draw.chance(0.35) * draw.between(0.4, 1)
    red = np.asarray((0.80, 0.30, 0.32), np.float32)
    made_up = 0.5 + 0.45 * beardless * draw.between(0, 1)
    return Identity(
        head_width=draw.around(0.545, 0.022),
        head_height=draw.around(1.0, 0.03),
        jaw=draw.around(0.86, 0.07),
        chin=draw.around(0.0, 0.03),
        cheeks=draw.around(0.0, 0.5),
        neck=draw.around(0.31, 0.02) - 0.035 * beardless,
        skin=skin,
        blush=draw.between(0, 1),
        age=draw.between(0, 1) ** 2,
        eye_distance=draw.around(0.243, 0.011),
        eye_size=draw.around(0.134, 0.009),
        eye_height=draw.around(0.55, 0.06),
        eye_slant=draw.around(0.06, 0.09),
        eye_colour=draw.colour(EYES, 0.1),
        brow_height=draw.around(0.155, 0.014),
        brow_thickness=draw.between(0.014, 0.038),
        brow_arch=draw.around(0.03, 0.015),
        brow_slant=draw.around(-0.02, 0.12),
        nose_length=draw.around(1.0, 0.09),
        nose_width=draw.around(1.0, 0.16),
        nose_size=draw.around(1.0, 0.18),
        mouth_width=draw.around(0.182, 0.017),
        lip_upper=draw.around(0.042, 0.010),
        lip_lower=draw.around(0.054, 0.011),
        lip_colour=(skin * (1 - made_up[:, None]) + red * np.sqrt(skin) * made_up[:, None]).astype(
            np.float32
        ),
        hair=1 - draw.chance(0.1),
        hair_colour=hair_colour,
        hair_length=np.where(long > 0, draw.between(0.35, 1.3), 0).astype(np.float32),
        hair_volume=draw.between(0.04, 0.12) * (1 + 0.8 * curl * draw.between(0, 1)),
        hair_line=draw.between(-0.60, -0.28),
        hair_part=draw.around(0.0, 0.22),
        hair_curl=curl,
        beard=(1 - beardless) * draw.chance(0.75) * draw.between(0.35, 1),
        moustache=(1 - beardless) * draw.chance(0.75) * draw.between(0.5, 1),
        glasses=draw.chance(0.22),
        glasses_size=draw.around(1.0, 0.08),
        glasses_round=draw.between(0, 1),
        glasses_colour=draw.colour(FRAMES, 0.1),
    )


def sample_attributes(seed: Seed, count: int) -> Attributes:
    """Return `count` sets of attributes, the same for the same seed."""
    draw = Sampler(seed, count)
    azimuth, height = draw.around(0, 0.7), draw.around(0.45, 0.3)
    light = np.stack(
        (np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)), axis=1
    )
    background = draw.generator.uniform(0.08, 0.95, (2, count, 3))
    grey = background.mean(axis=2, keepdims=True)
    background = (grey + 0.6 * (background - grey)).astype(np.float32)
    return Attributes(
        yaw=draw.around(0, 0.28),
        pitch=draw.around(0.02, 0.12),
        roll=draw.around(0, 0.05),
        x=draw.around(0, 0.02),
        y=draw.around(0, 0.02),
        scale=draw.around(1.05, 0.025),
        mouth_open=draw.chance(0.45) * draw.between(0.15, 1),
        smile=draw.between(-0.6, 1),
        eyes_open=np.where(draw.chance(0.08) > 0, 0, draw.between(0.55, 1.15)).astype(np.float32),
        gaze_x=draw.around(0, 0.5),
        gaze_y=draw.around(0, 0.35),
        brows=draw.around(0, 0.5),
        light=light.astype(np.float32),
        brightness=draw.between(0.64, 0.93),
        ambient=draw.between(0.24, 0.42),
        background=background[0],
        background_end=background[1],
        background_angle=draw.between(0, 2 * np.pi),
        shirt=draw.generator.uniform(0.08, 0.9, (count, 3)).astype(np.float32),
    )
