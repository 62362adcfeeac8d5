"""`face-anon evaluate` writes a report that stands alone, of a checkpoint and of folders of photos."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from conftest import PHOTO, TINY
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from cli.main import app
from model.evaluation.estimates import Estimate
from model.evaluation.expressions import expression_in
from model.evaluation.figures import sheet
from model.evaluation.findings import Findings, Row, Strip, Table, Target
from model.evaluation.report import html, markdown
from model.faces.landmarks import FaceMesh
from model.faces.pyramid import View
from model.renderer.parameters import sample_attributes, sample_identities
from model.renderer.picture import render

VOID = {"meta", "img", "br", "!doctype"}


class Page(HTMLParser):
    """Reads a page: fails where tags do not nest, and keeps what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        assert self.open in ([], ["html"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag."""
        self.references += [str(target) for name, target in attrs if name in {"src", "href"}]
        if tag not in VOID and tag != "li":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag."""
        if tag != "li":
            assert self.open.pop() == tag


def evaluate(*options: str | Path) -> Result:
    """Run `face-anon evaluate`, in this process: its imports take longer than the rest."""
    return CliRunner().invoke(app, ["evaluate", *map(str, options)])


def test_checkpoint_report(tmp_path: Path) -> None:
    """The quick evaluation of a checkpoint writes JSON, Markdown with its pictures, and a page that holds
    all.
    """
    done = evaluate(
        tmp_path / "report", "--checkpoint", TINY, "--quick", "--steps", "2", "--guidance-scale", "1"
    )
    assert done.exit_code == 0, done.output
    findings = Findings.model_validate_json((tmp_path / "report" / "report.json").read_bytes())
    assert [table.key for table in findings.tables] == ["degree", "swap", "equations", "samplers"]
    assert [row.degree for row in findings.tables[0].rows] == [0.6, 1.25, 1.5]
    assert findings.targets
    assert findings.run["made with"].startswith("ddpm, 2 steps, guidance 1")
    text = (tmp_path / "report" / "report.md").read_text()
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "report" / line[line.index("(") + 1 : -1]).stat().st_size > 0
    for target in findings.targets:
        assert target.wanted in text
        assert target.wanted in done.stderr


def test_folders(tmp_path: Path) -> None:
    """A result that is the photo is recognized; one whose face is gone is counted as such, and not
    measured.
    """
    photos, results = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    results.mkdir()
    photo = Image.open(PHOTO).convert("RGB").resize((256, 256))
    other = Image.fromarray(render(sample_identities(3, 1), sample_attributes(4, 1), 160)[0])
    for name, picture in (("kept", photo), ("gone", other)):
        picture.save(photos / f"{name}.png")
    photo.save(results / "kept.jpg", quality=95)
    other.filter(ImageFilter.GaussianBlur(60)).save(results / "gone.png")
    other.save(results / "alone.png")
    done = evaluate(tmp_path / "report", "--photos", photos, "--results", results)
    assert done.exit_code == 0, done.output
    findings = Findings.model_validate_json((tmp_path / "report" / "report.json").read_bytes())
    assert findings.left_out == ("alone: only in one of the folders",)
    faces = {face.file: face for face in findings.faces}
    assert faces["kept"].found
    assert faces["kept"].values["identity_distance"] < 0.2
    assert faces["kept"].values["re_identified"] == 1
    assert faces["kept"].values["recognizable"] == 1
    assert faces["kept"].values["yaw"] < 3
    assert not faces["gone"].found
    assert faces["gone"].values == {}
    row = findings.tables[0].rows[0]
    assert row.values["found"].value == 0.5
    assert findings.tables[0].anchors[0].values["identity_distance"].value > 0.6
    Page((tmp_path / "report" / "report.html").read_text())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--photos", "nowhere", "--results", "nowhere"), "there is no such folder"),
        (("--photos", "tests"), "go together"),
        (("--checkpoint", "tests"), "missing"),
    ],
)
def test_errors_are_sentences(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    """What cannot be evaluated is said in a sentence, without a traceback."""
    done = evaluate(tmp_path / "report", *options)
    assert done.exit_code != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_photographed_expression_follows_the_truth() -> None:
    """Of rendered portraits, yaw and mouth as the mesh shows them go with the true parameters."""
    identities, attributes = sample_identities(5, 24), sample_attributes(6, 24)
    identities = replace(identities, glasses=np.zeros(24, np.float32), beard=np.zeros(24, np.float32))
    mesh = FaceMesh(threads=1)
    seen = [
        expression_in(mesh, picture, View((96.0, 100.0), 150.0))
        for picture in render(identities, attributes, 192)
    ]
    known = [index for index, one in enumerate(seen) if one is not None]
    assert len(known) >= 20
    for name, least in (("yaw", 0.9), ("mouth_open", 0.7)):
        read = [getattr(seen[index], name) for index in known]
        assert np.corrcoef(read, getattr(attributes, name)[known])[0, 1] > least, name


def test_report_escapes(tmp_path: Path) -> None:
    """What comes from outside, a folder's name or a checkpoint's, stays text in both forms."""
    one = Estimate(value=0.5, low=0.4, high=0.6, count=3)
    findings = Findings(
        title="<script>alert(1)</script>",
        run={"photos": "a<b>|c"},
        tables=(Table(key="t", title="t", note="<i>", rows=(Row(label="a|<b>", values={"found": one}),)),),
        targets=(Target(wanted="<u>", found="x", met=None),),
        left_out=("<li>",),
    )
    strip = Strip("t", "t", "t", "c", ("one", "two"), np.zeros((2, 2, 16, 16, 3), np.uint8))
    text = html(findings, [sheet(strip)])
    Page(text)
    assert "<script>" not in text
    assert "<u>" not in text
    assert "a\\|<b>" in markdown(findings)
    assert "50 % (40 to 60)" in markdown(findings)
    assert list(tmp_path.iterdir()) == []
