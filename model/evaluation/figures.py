"""Draws the report's figures: plots against the degree as SVG, and strips of pictures as PNG.

The findings come before; `report.py` puts the figures into the page and beside the text.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from model.evaluation.experiments import ITSELF, RANDOM, STRANGER
from model.evaluation.findings import NAMES, Row, Strip, Table
from model.evaluation.portraits import Pixels
from model.evaluation.readings import Verification

# A picture of a strip is shown this wide at least, so that a face of 64 pixels can be looked at.
SHOWN, GAP, HEAD = 128, 6, 22
COLOURS = ("#0b6e99", "#b3541e", "#4c7a34", "#7a4c8f")
GREY = "#777777"


@dataclass(frozen=True)
class Picture:
    """A figure of the report; `suffix` is that of its file, `table` the key of the table it stands below."""

    key: str
    table: str
    title: str
    caption: str
    suffix: str
    content: bytes


def plots(table: Table, verification: Verification | None) -> list[Picture]:
    """Return what the degree does: identity, attributes, background and whether there is a face."""
    wanted = (
        (
            "identity", "Identity against d", ("identity_distance",), (STRANGER, ITSELF),
            "Cosine distance to the portrait (Figure 9).",
        ),
        (
            "re-identification", "Re-identification against d", ("re_identified",), (STRANGER,),
            "Share of faces whose nearest in the gallery is the portrait they were made of (Figure 9).",
        ),
        (
            "attributes", "What is to be kept, against d", ("pose", "gaze", "expression"), (RANDOM, ITSELF),
            "In standard deviations; dashed: random pairs, dotted: the portrait itself (Figure 11).",
        ),
        (
            "shape", "Shape and looks against d", ("shape", "looks"), (STRANGER, ITSELF),
            "Part of the identity: should grow with d. Dashed: strangers, dotted: the portrait (Figure 11).",
        ),
        (
            "background", "Background against d", ("background",), (STRANGER,),
            "Signal-to-noise ratio outside the portrait's head.",
        ),
        ("found", "Faces found against d", ("found",), (ITSELF,), "Share that the finder finds (Figure 10)."),
    )  # fmt: skip
    drawn = []
    for key, title, names, anchors, caption in wanted:
        shown = [name for name in names if any(name in row.values for row in table.rows)]
        if shown:
            threshold = verification.threshold if verification and key == "identity" else None
            drawn.append(
                Picture(key, table.key, title, caption, ".svg", _plot(table, shown, anchors, threshold))
            )
    return drawn


def _plot(table: Table, names: Iterable[str], anchors: tuple[str, ...], threshold: float | None) -> bytes:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(names, COLOURS, strict=False):
        _line(
            axes, [row for row in table.rows if name in row.values and row.degree is not None], name, colour
        )
        for anchor, style in zip(anchors, ("--", ":"), strict=False):
            row = next((row for row in table.anchors if row.label == anchor and name in row.values), None)
            if row:
                axes.axhline(
                    row.values[name].value, color=colour, linestyle=style, linewidth=1, label=f"{anchor}"
                )
    if threshold is not None:
        axes.axhline(threshold, color=GREY, linewidth=1, label="threshold of the same person")
    axes.set_xlabel("degree d")
    axes.set_xticks([row.degree for row in table.rows if row.degree is not None and row.degree != 1.25])  # noqa: PLR2004  too close to 1.2 to write both
    first = NAMES[next(iter(names))]
    axes.set_ylabel(first.label if first.label in {"identity distance", "re-identified"} else "")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        *zip(*dict(zip(labels, zip(handles, labels, strict=True), strict=True)).values(), strict=True),
        fontsize=8, frameon=False,
    )  # fmt: skip
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "face-anon"}):
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _line(axes: Axes, rows: list[Row], name: str, colour: str) -> None:
    degrees = [row.degree for row in rows if row.degree is not None]
    values = [row.values[name] for row in rows]
    axes.plot(
        degrees,
        [one.value for one in values],
        color=colour,
        marker="o",
        markersize=4,
        label=NAMES[name].label,
    )
    axes.fill_between(
        degrees,
        [one.low for one in values],
        [one.high for one in values],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )
    if NAMES[name].percent:
        axes.set_ylim(-0.03, 1.03)


def sheet(strip: Strip) -> Picture:
    """Return a strip as one picture, its columns labelled."""
    rows, columns, size = strip.pictures.shape[:3]
    enlarged = max(1, round(SHOWN / size))
    side = size * enlarged
    canvas = Image.new("RGB", (columns * (side + GAP) - GAP, HEAD + rows * (side + GAP) - GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for column, label in enumerate(strip.columns):
        left = column * (side + GAP)
        draw.text((left + side / 2, HEAD / 2), _short(label), font=font, fill="black", anchor="mm")
        for row in range(rows):
            canvas.paste(_enlarged(strip.pictures[row, column], side), (left, HEAD + row * (side + GAP)))
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return Picture(f"strip-{strip.key}", strip.table, strip.title, strip.caption, ".png", file.getvalue())


def _short(label: str) -> str:
    longest = 19  # characters over a picture
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _enlarged(picture: Pixels, side: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.BICUBIC)
