"""The report of `face-anon submit`: what became of each photo, as a table for people and as JSON. Photos that
somebody should look at are listed apart: a face that was missed is the worst that can happen.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from face_anon_client import Face, JobState

# Warnings about the weights and the parameters: they say nothing about one photo.
GENERAL_WARNINGS = ("demonstration weights", "d is ")
SUCCEEDED, FAILED, NOT_DONE = "succeeded", "failed", "not done"


@dataclass(frozen=True)
class Row:
    """What became of one photo; `look` says why somebody should look at the result."""

    photo: str
    status: str
    earlier: bool = False
    output: str | None = None
    job: str | None = None
    seed: int | None = None
    found: int | None = None
    replaced: int | None = None
    redacted: int | None = None
    distance: float | None = None
    faces: Sequence[dict[str, Any]] = ()
    warnings: Sequence[str] = ()
    look: Sequence[str] = ()
    seconds: float | None = None
    code: str | None = None
    detail: str | None = None


def succeeded(photo: str, output: str, state: JobState, seconds: float) -> Row:
    """Return the row of a photo whose result was written; `distance` is its least changed face's."""
    faces = state.result.faces if state.result else ()
    distances = [face.identity_distance for face in faces if face.identity_distance is not None]
    return Row(
        photo=photo,
        status=SUCCEEDED,
        output=output,
        job=state.id,
        seed=state.parameters.seed,
        found=len(faces),
        replaced=sum(face.status == "replaced" for face in faces),
        redacted=sum(face.status == "redacted" for face in faces),
        distance=min(distances, default=None),
        faces=[asdict(face) for face in faces],
        warnings=state.warnings,
        look=list(_reasons(faces, state)),
        seconds=round(seconds, 1),
    )


def done_earlier(photo: str, row: Mapping[str, Any]) -> Row:
    """Return the row that an earlier run, perhaps of an older version, has kept for a photo."""
    known = {field.name for field in fields(Row)} & row.keys()
    return Row(
        **{**{name: row[name] for name in known}, "photo": photo, "status": SUCCEEDED, "earlier": True}
    )


def _reasons(faces: Sequence[Face], state: JobState) -> Iterator[str]:
    if not faces:
        yield "no face was found"
    for face in faces:
        if face.status != "replaced":
            yield f"face {face.index} was {face.status}"
        elif face.identity_distance is None and state.parameters.faces != "aligned":
            yield f"whether face {face.index} is recognizable could not be measured"
    said = "no face was found"  # in the service's words it would be there twice
    yield from (warning for warning in state.warnings if not warning.startswith((*GENERAL_WARNINGS, said)))


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many photos there are of each kind, and how many faces."""
    by_status = Counter(row.status for row in rows)
    return {
        "photos": len(rows),
        SUCCEEDED: by_status[SUCCEEDED],
        "earlier": sum(row.earlier for row in rows),
        FAILED: by_status[FAILED],
        "not_done": by_status[NOT_DONE],
        "look": sum(bool(row.look) for row in rows),
        "faces": sum(row.found or 0 for row in rows),
        "replaced": sum(row.replaced or 0 for row in rows),
        "redacted": sum(row.redacted or 0 for row in rows),
    }


def as_json(rows: Sequence[Row], **about: object) -> dict[str, object]:
    """Return the report as JSON: what it is about, the totals, every photo."""
    return {**about, "totals": totals(rows), "photos": [asdict(row) for row in rows]}


def as_text(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the report: the table, what is true of all, what to look at, what failed."""
    heads = ("photo", "status", "faces", "replaced", "redacted", "distance", "seconds")
    table = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    for photo, status, *numbers in table:
        right = (number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True))
        yield "  ".join((photo.ljust(widths[0]), status.ljust(widths[1]), *right)).rstrip()
    general = Counter(
        warning for row in rows for warning in row.warnings if warning.startswith(GENERAL_WARNINGS)
    )
    yield from (f"note, for {count} photo(s): {warning}" for warning, count in general.items())
    if look := [row for row in rows if row.look]:
        yield "look at these:"
        yield from (f"  {row.output}: {'; '.join(row.look)}" for row in look)
    if failed := [row for row in rows if row.status == FAILED]:
        yield "failed:"
        yield from (f"  {row.photo}: {row.detail} ({row.code})" for row in failed)
    yield ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in totals(rows).items() if count)


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (row.found, row.replaced, row.redacted, row.distance, row.seconds)
    shown = ("" if number is None else f"{number:g}" for number in numbers)
    return (row.photo, f"{row.status} earlier" if row.earlier else row.status, *shown)
