"""docs/client.md is true: each of its blocks runs against the service, as a reader would run it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PHOTO, ROOT, Running
from PIL import Image

PAGE = ROOT / "docs" / "client.md"
BLOCKS = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOCAL = "http://127.0.0.1:8000"


def test_every_block_runs(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python blocks as one program, the commands in a shell; they say and write what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACE_ANON_URL", served.url)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with Image.open(PHOTO) as photo:
        small = photo.convert("RGB").resize((256, 256))
    small.save("photo.jpg")
    small.save("portrait.jpg")
    (tmp_path / "photos" / "day 1").mkdir(parents=True)
    shutil.copy("photo.jpg", "photos/day 1/photo.jpg")
    namespace: dict[str, object] = {}
    blocks = BLOCKS.findall(PAGE.read_text())
    assert [language for language, _ in blocks] == ["python"] * 5 + ["sh"] * 2
    for language, block in blocks:
        if language == "python":
            # its address is the one `make serve` listens at; fewer steps make the same point
            source = block.replace(LOCAL, served.url).replace("steps=20", "steps=2")
            exec(compile(source, PAGE.name, "exec"), namespace)  # noqa: S102  our own page
        else:
            subprocess.run(
                ["/bin/sh", "-ec", block.replace("--steps 20", "--steps 2")], check=True, timeout=300
            )
    said = capsys.readouterr().out
    assert "bytes of image/jpeg" in said
    assert "100% of face 1 of 1" in said
    assert "replaced" in said
    assert "invalid_parameter d: " in said
    assert "3 different pictures" in said
    for written in ("out.jpg", "anonymized/day 1/photo.jpg", "swapped/photo.jpg"):
        with Image.open(written) as picture:
            assert (picture.format, picture.size) == ("JPEG", (256, 256))
    assert Path("anonymized/report.json").is_file()
