"""What an evaluation found, as values: what `report.json` holds and every other form of the report is made
of.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from model.evaluation.estimates import Estimate
from model.evaluation.portraits import Pixels
from model.evaluation.readings import Reading, Verification


class Row(BaseModel):
    """One line of a table: what was measured of faces made in one way, by the names in `NAMES`."""

    model_config = ConfigDict(frozen=True)

    label: str
    degree: float | None = None
    values: dict[str, Estimate]


class Table(BaseModel):
    """One experiment: lines of made faces, and below them lines of portraits to read them by."""

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    note: str
    rows: tuple[Row, ...]
    anchors: tuple[Row, ...] = ()


class Target(BaseModel):
    """Something a checkpoint should reach; `met` is None where it could not be measured."""

    model_config = ConfigDict(frozen=True)

    wanted: str
    found: str
    met: bool | None


class FaceRecord(BaseModel):
    """One face of a photo, and what was measured of it in the result; `found` says whether there is one."""

    model_config = ConfigDict(frozen=True)

    file: str
    face: int
    found: bool
    values: dict[str, float]


class Findings(BaseModel):
    """A whole evaluation: what was run, what was found, and what was left out and why."""

    model_config = ConfigDict(frozen=True)

    title: str
    run: dict[str, str]
    readings: tuple[Reading, ...] = ()
    groups: dict[str, tuple[str, ...]] = {}
    """What the errors that are means are means of: the readable parameters by group."""
    verification: Verification | None = None
    left_out: tuple[str, ...] = ()
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    faces: tuple[FaceRecord, ...] = ()


@dataclass(frozen=True)
class Strip:
    """Pictures (rows, columns, size, size, 3) to look at below a table, with a label for each column."""

    key: str
    table: str
    title: str
    caption: str
    columns: tuple[str, ...]
    pictures: Pixels


@dataclass(frozen=True)
class Name:
    """How a measure is called and written."""

    label: str
    digits: int = 2
    percent: bool = False

    def written(self, value: float) -> str:
        """Return a value as the tables show it."""
        return f"{100 * value:.{max(self.digits - 2, 0)}f} %" if self.percent else f"{value:.{self.digits}f}"


NAMES = {
    "identity_distance": Name("identity distance"),
    "to_others": Name("distance to others"),
    "apart": Name("faces apart"),
    "re_identified": Name("re-identified", percent=True),
    "closer": Name("closer to source", percent=True),
    "to_source": Name("distance to source"),
    "to_driving": Name("distance to driving"),
    "source_found": Name("source found", percent=True),
    "pose": Name("pose error"),
    "gaze": Name("gaze error"),
    "expression": Name("expression error"),
    "shape": Name("shape difference"),
    "looks": Name("hair, beard, glasses"),
    "background": Name("background, dB", 1),
    "face": Name("head, dB", 1),
    "found": Name("face found", percent=True),
    "yaw": Name("yaw error, degrees", 1),
    "pitch": Name("pitch error, degrees", 1),
    "roll": Name("roll error, degrees", 1),
    "mouth_open": Name("mouth error"),
    "smile": Name("smile error"),
    "eyes_open": Name("eyes error"),
    "likeness": Name("to DDPM, dB", 1),
    "same_identity": Name("identity distance to DDPM"),
    "recognizable": Name("possibly recognizable", percent=True),
}
"""Every measure there is, in the order of the tables' columns."""
