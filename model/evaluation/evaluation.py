"""A whole evaluation of a checkpoint: validates what measures, runs the experiments, holds them against the
targets.

`experiments.py` comes before; `report.py` writes what comes out.
"""

from dataclasses import dataclass

import numpy as np

from model.evaluation.comparison import GROUPS
from model.evaluation.estimates import Estimate
from model.evaluation.experiments import ITSELF, RANDOM, STRANGER, Experiments
from model.evaluation.findings import Findings, Row, Strip, Table, Target
from model.evaluation.networks import PARAMETERS
from model.evaluation.presence import TRUSTED
from model.evaluation.readings import READABLE, Measures

CLOSER, BELOW_RANDOM, BACKGROUND = 0.95, 0.5, 26.0
# The least accuracy of the embedding on pairs of held-out portraits; worse, and no identity is reported.
VERIFIED = 0.9
OF_IDENTITY = (
    "identity_distance",
    "to_others",
    "apart",
    "re_identified",
    "closer",
    "to_source",
    "to_driving",
    "source_found",
    "same_identity",
)


@dataclass(frozen=True)
class Evaluated:
    """What was found, and pictures to look at."""

    findings: Findings
    strips: tuple[Strip, ...]


def evaluate(experiments: Experiments, title: str, run: dict[str, str]) -> Evaluated:
    """Run every experiment; `run` says what was run, for the reader of the report."""
    degree, degree_strip = experiments.degrees()
    swap, swap_strip = experiments.swaps()
    equations, equations_strip = experiments.equations()
    samplers, samplers_strip = experiments.samplers()
    measures = experiments.measures
    silent = untrusted(measures, degree)
    tables = tuple(_without(table, silent) for table in (degree, swap, equations, samplers))
    findings = Findings(
        title=title,
        run=run,
        readings=measures.readings,
        groups={group: measures.readable(names) for group, names in GROUPS.items()},
        verification=measures.verification,
        left_out=(*_unread(measures), *dict.fromkeys(silent.values())),
        tables=tables,
        targets=targets(tables[0], tables[1], experiments.plan.degree),
    )
    strips = (degree_strip, experiments.seeds(), swap_strip, equations_strip, samplers_strip)
    return Evaluated(findings, strips)


def untrusted(measures: Measures, degree: Table) -> dict[str, str]:
    """Return the measures that failed their validation, with the reason."""
    reasons: dict[str, str] = {}
    verification = measures.verification
    accuracy = min(verification.accuracy, verification.accuracy_soft)
    if accuracy < VERIFIED:
        reason = (
            f"identity: the embedding tells {100 * accuracy:.0f} % of pairs, {100 * VERIFIED:.0f} % is asked"
        )
        reasons |= dict.fromkeys(OF_IDENTITY, reason)
    found = _value(degree.anchors, ITSELF, "found")
    if found is None or found.value < TRUSTED:
        reasons["found"] = (
            f"face found: fewer than {100 * TRUSTED:.0f} % of the portraits themselves are found"
        )
    return reasons


def targets(degree: Table, swap: Table, at: float) -> tuple[Target, ...]:
    """Return what a shipped checkpoint should reach, and whether it does."""
    swapped = swap.rows[0]
    return (
        _at_least(
            "swaps closer to the source than to the driving portrait", swapped.values.get("closer"), CLOSER
        ),
        _rising(degree),
        _as_strangers(degree, at),
        *(
            target
            for row in (*_rows_at(degree, at), swapped)
            for target in _below_random(row, _row(degree.anchors, RANDOM))
        ),
        *(
            _at_least(f"background, {row.label}, in dB", row.values.get("background"), BACKGROUND)
            for row in (*_rows_at(degree, at), swapped)
        ),
    )


def _at_least(what: str, found: Estimate | None, least: float) -> Target:
    written = f"{100 * least:g} %" if least <= 1 else f"{least:g}"
    return Target(
        wanted=f"{what}: at least {written}",
        found=_written(found, percent=least <= 1),
        met=None if found is None else found.value >= least,
    )


def _rising(degree: Table) -> Target:
    found = [row.values.get("identity_distance") for row in degree.rows]
    known = [one.value for one in found if one]
    whole = len(known) == len(found)
    return Target(
        wanted="identity distance rises with d over the whole range",
        found=", ".join(f"{value:.2f}" for value in known) or "not measured",
        met=bool(np.all(np.diff(known) > 0)) if whole else None,
    )


def _as_strangers(degree: Table, at: float) -> Target:
    """Reached means: within the interval of the strangers' mean, or above it."""
    reached = [row.values.get("identity_distance") for row in degree.rows if row.degree and row.degree <= at]
    strangers = _value(degree.anchors, STRANGER, "identity_distance")
    most = max((one for one in reached if one), key=lambda one: one.value, default=None)
    known = most is not None and strangers is not None
    return Target(
        wanted=f"identity distance reaches that of strangers by d = {at:g}",
        found=f"{_written(most)}, strangers {_written(strangers)}",
        met=most.value >= strangers.low if known and most and strangers else None,
    )


def _below_random(row: Row, random: Row | None) -> list[Target]:
    found = []
    for name, what in (("pose", "pose"), ("gaze", "gaze"), ("mouth_open", "mouth opening")):
        own, other = row.values.get(name), random.values.get(name) if random else None
        known = own is not None and other is not None
        found.append(
            Target(
                wanted=f"{what} error, {row.label}: below {BELOW_RANDOM:g} of that between random pairs",
                found=f"{own.value / other.value:.2f} of it ({own.value:.2f} of {other.value:.2f})"
                if own and other
                else "not measured",
                met=own.value < BELOW_RANDOM * other.value if known and own and other else None,
            )
        )
    return found


def _written(found: Estimate | None, *, percent: bool = False) -> str:
    if found is None:
        return "not measured"
    if percent:
        return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _rows_at(table: Table, degree: float) -> list[Row]:
    return [row for row in table.rows if row.degree == degree]


def _row(rows: tuple[Row, ...], label: str) -> Row | None:
    return next((row for row in rows if row.label == label), None)


def _value(rows: tuple[Row, ...], label: str, name: str) -> Estimate | None:
    row = _row(rows, label)
    return row.values.get(name) if row else None


def _without(table: Table, silent: dict[str, str]) -> Table:
    def kept(row: Row) -> Row:
        return row.model_copy(
            update={"values": {name: one for name, one in row.values.items() if name not in silent}}
        )

    return table.model_copy(
        update={"rows": tuple(map(kept, table.rows)), "anchors": tuple(map(kept, table.anchors))}
    )


def _unread(measures: Measures) -> tuple[str, ...]:
    readable = set(measures.readable(PARAMETERS))
    return tuple(
        f"{one.name}: R2 {one.crisp:.2f} on held-out portraits, {one.soft:.2f} blurred; {READABLE:g} is asked"
        for one in measures.readings
        if one.name not in readable
    )
