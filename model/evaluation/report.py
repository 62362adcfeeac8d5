"""Writes an evaluation as a folder: `report.json`, `report.md` with its pictures, and `report.html`, which
holds all.

The findings (`evaluation.py`, `folders.py`) come before; people and scripts read what is written.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from model.evaluation.estimates import Estimate
from model.evaluation.figures import Picture
from model.evaluation.findings import NAMES, Findings, Row, Table, Target
from model.evaluation.readings import Reading, Verification

STYLE = Path(__file__).with_name("report.css")
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
EXPLAINED = (
    "Errors of pose, gaze, expression and shape are in standard deviations of the portraits, angles alone in "
    "degrees. "
    "In brackets: the 95 % interval over subjects (bootstrap)."
)


def write_report(folder: Path, findings: Findings, pictures: Sequence[Picture]) -> None:
    """Write the report's files into a folder, which is made where it is not there."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / _file(picture)).write_bytes(picture.content)
    (folder / "report.json").write_text(findings.model_dump_json(indent=2) + "\n")
    (folder / "report.md").write_text(markdown(findings, pictures))
    (folder / "report.html").write_text(html(findings, pictures))


def markdown(findings: Findings, pictures: Sequence[Picture] = ()) -> str:
    """Return the report as Markdown; pictures are those beside it."""
    parts = [f"# {findings.title}", "\n".join(f"- {name}: {value}" for name, value in findings.run.items())]
    if findings.targets:
        reached = [(target.wanted, target.found, _verdict(target)) for target in findings.targets]
        parts += ["## Targets", _markdown_table(("target", "found", ""), reached)]
    for table in findings.tables:
        parts += [f"## {table.title}", table.note, _markdown_table(*_cells(table))]
        for picture in pictures:
            if picture.table == table.key:
                parts += [f"![{picture.title}]({_file(picture)})", f"{picture.title}. {picture.caption}"]
    if findings.readings:
        parts += ["## What measures", _on_verification(findings.verification), _on_groups(findings.groups)]
        parts.append(_markdown_table(READINGS, [_on_reading(one) for one in findings.readings]))
    if findings.left_out:
        parts += ["## Left out", "\n".join(f"- {one}" for one in findings.left_out)]
    parts.append(EXPLAINED)
    return "\n\n".join(parts) + "\n"


def html(findings: Findings, pictures: Sequence[Picture]) -> str:
    """Return the report as one page that needs no other file."""
    run = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in findings.run.items())
    parts = [f"<h1>{escape(findings.title)}</h1><dl>{run}</dl>"]
    if findings.targets:
        reached = "".join(map(_target, findings.targets))
        parts.append(f"<h2>Targets</h2><table class=targets><tbody>{reached}</tbody></table>")
    for table in findings.tables:
        parts.append(f"<h2>{escape(table.title)}</h2><p>{escape(table.note)}</p>{_html_table(table)}")
        shown = [picture for picture in pictures if picture.table == table.key]
        plots = "".join(_figure(picture) for picture in shown if picture.suffix == ".svg")
        parts.append(f"<div class=plots>{plots}</div>")
        parts += [_figure(picture) for picture in shown if picture.suffix == ".png"]
    if findings.readings:
        told = (_on_verification(findings.verification), _on_groups(findings.groups))
        parts.append("<h2>What measures</h2>" + "".join(f"<p>{escape(one)}</p>" for one in told))
        parts.append(_plain_table(READINGS, [_on_reading(one) for one in findings.readings]))
    if findings.left_out:
        left_out = "".join(f"<li>{escape(one)}" for one in findings.left_out)
        parts.append(f"<h2>Left out</h2><ul>{left_out}</ul>")
    parts.append(f"<p class=note>{escape(EXPLAINED)}</p>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(findings.title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE.read_text()}</style><main>{''.join(parts)}</main></html>\n"
    )


READINGS = ("parameter", "R2, crisp", "R2, blurred", "")


def _on_reading(reading: Reading) -> tuple[str, ...]:
    verdict = "" if reading.readable else "not reported"
    return reading.name, f"{reading.crisp:.2f}", f"{reading.soft:.2f}", verdict


def _on_groups(groups: Mapping[str, tuple[str, ...]]) -> str:
    told = (
        f"{NAMES[group].label}: {', '.join(names) or 'nothing readable'}" for group, names in groups.items()
    )
    return f"What errors are means of. {'; '.join(told)}."


def _on_verification(verification: Verification | None) -> str:
    if verification is None:
        return ""
    return (
        f"Identity, on {verification.pairs} pairs of held-out portraits in different attributes: "
        f"{100 * verification.accuracy:.1f} % told right ({100 * verification.accuracy_soft:.1f} % where one "
        f"is blurred), threshold {verification.threshold:.2f}; the same person lies {verification.same:.2f} "
        f"apart, strangers {verification.strangers:.2f}; {100 * verification.nearest:.1f} % find themselves "
        "first among all."
    )


def _columns(table: Table) -> list[str]:
    present = {name for row in (*table.rows, *table.anchors) for name in row.values}
    return [name for name in NAMES if name in present]


def _cells(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = _columns(table)
    rows = [_row_cells(row, columns) for row in table.rows]
    rows += [_row_cells(row, columns, emphasis="_") for row in table.anchors]
    return ("", *(NAMES[name].label for name in columns)), rows


def _row_cells(row: Row, columns: Sequence[str], emphasis: str = "") -> tuple[str, ...]:
    label = f"{emphasis}{row.label}{emphasis}"
    return (label, *(_cell(name, row.values.get(name)) for name in columns))


def _cell(name: str, found: Estimate | None) -> str:
    if found is None:
        return ""
    known = NAMES[name]
    low, high = (known.written(bound).removesuffix(" %") for bound in (found.low, found.high))
    return f"{known.written(found.value)} ({low} to {high})"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html_table(table: Table) -> str:
    columns = _columns(table)
    head = "<th></th>" + "".join(f"<th>{escape(NAMES[name].label)}</th>" for name in columns)

    def line(row: Row, kind: str) -> str:
        cells = "".join(f"<td>{_html_cell(name, row.values.get(name))}</td>" for name in columns)
        return f"<tr{kind}><th>{escape(row.label)}</th>{cells}</tr>"

    rows = "".join(line(row, "") for row in table.rows)
    rows += "".join(line(row, " class=anchor") for row in table.anchors)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _html_cell(name: str, found: Estimate | None) -> str:
    if found is None:
        return ""
    value, _, interval = _cell(name, found).rpartition(" (")
    return f"{escape(value)}<small>{escape(interval.rstrip(')'))}</small>"


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _target(target: Target) -> str:
    kind = {True: "met", False: "missed", None: "unknown"}[target.met]
    return (
        f"<tr><td><span class={kind}>{_verdict(target)}</span></td><th>{escape(target.wanted)}</th>"
        f"<td>{escape(target.found)}</td></tr>"
    )


def _verdict(target: Target) -> str:
    return {True: "met", False: "missed", None: "not measured"}[target.met]


def _figure(picture: Picture) -> str:
    encoded = base64.b64encode(picture.content).decode()
    source = f"data:{KINDS[picture.suffix]};base64,{encoded}"
    return (
        f'<figure><img src="{source}" alt="{escape(picture.title)}">'
        f"<figcaption><b>{escape(picture.title)}.</b> {escape(picture.caption)}</figcaption></figure>"
    )


def _file(picture: Picture) -> str:
    return f"pictures/{picture.key}{picture.suffix}"
