"""`face-anon` as scripts use it: exit codes, sentences on stderr, and a help that loads nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FACE_ANON, PHOTO, ROOT, TINY
from PIL import Image


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `face-anon` and return what it said."""
    return subprocess.run(
        [*FACE_ANON, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_loads_neither_torch_nor_the_service() -> None:
    """Help answers at once, since nothing heavy is imported."""
    script = (
        "import sys; from typer.testing import CliRunner; from cli.main import app;"
        "result = CliRunner().invoke(app, ['--help']); assert 'anonymize' in result.output;"
        "heavy = {'torch', 'diffusers', 'transformers', 'fastapi', 'rq', 'httpx'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("command", ["anonymize", "swap", "detect", "submit", "service", "worker", "serve"])
def test_each_command_explains_itself(command: str) -> None:
    """`--help` of every command exits 0 and describes its options."""
    result = run(command, "--help")
    assert result.returncode == 0
    assert "--help" in result.stdout


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".avif", "AVIF")])
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str, kind: str) -> None:
    """OUT is the photo in the format of its suffix; progress and each face's fate are told on stderr."""
    out = tmp_path / f"out{suffix}"
    result = run("swap", PHOTO, PHOTO, out, "--checkpoint", TINY, "--steps", "3", "--seed", "5")
    assert result.returncode == 0, result.stderr
    assert "3/3" in result.stderr
    assert "face 0: replaced, seed 5, identity distance 0." in result.stderr
    with Image.open(out) as image:
        assert (image.format, image.size) == (kind, (512, 512))


def test_the_shipped_checkpoint_says_that_it_is_for_demonstration(tmp_path: Path) -> None:
    """Without --checkpoint the small weights are used, and said to be for demonstration."""
    result = run("anonymize", PHOTO, tmp_path / "out.png", "--steps", "1")
    assert result.returncode == 0, result.stderr
    assert "demonstration weights" in result.stderr


def test_a_file_that_is_no_picture_is_an_error(tmp_path: Path) -> None:
    """Exit code 1, one sentence that names the file, no traceback."""
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    result = run("anonymize", text, tmp_path / "out.png", "--checkpoint", TINY)
    assert result.returncode == 1
    assert f"face-anon: {text}: the 13 bytes are not a picture we read" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    """A wrong suffix or a missing folder is said before a network is loaded."""
    wrong_suffix = run("anonymize", PHOTO, tmp_path / "out.gif", "--checkpoint", tmp_path)
    assert wrong_suffix.returncode == 1
    assert "the suffix must be one of .png" in wrong_suffix.stderr
    no_folder = run("anonymize", PHOTO, tmp_path / "no" / "out.png", "--checkpoint", tmp_path)
    assert no_folder.returncode == 1
    assert "there is no such folder" in no_folder.stderr


def test_a_broken_checkpoint_is_an_error(tmp_path: Path) -> None:
    """Exit code 1 and the part that is missing."""
    result = run("anonymize", PHOTO, tmp_path / "out.png", "--checkpoint", tmp_path)
    assert result.returncode == 1
    assert "unet: this part of the checkpoint is missing" in result.stderr


@pytest.mark.parametrize(
    ("device", "said"), [("cuda:99", "there is no device cuda:99"), ("gpu", "gpu is no device: cpu, cuda")]
)
def test_a_device_that_is_not_there_is_an_error(tmp_path: Path, device: str, said: str) -> None:
    """Exit code 1, and what there is."""
    result = run("anonymize", PHOTO, tmp_path / "out.png", "--checkpoint", TINY, "--device", device)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [["--d", "3"], ["--steps", "0"], ["--faces", "some"]])
def test_a_wrong_option_is_a_usage_error(tmp_path: Path, options: list[str]) -> None:
    """Exit code 2 names the option."""
    result = run("anonymize", PHOTO, tmp_path / "out.png", *options)
    assert result.returncode == 2
    assert options[0] in result.stderr


def test_detect_prints_json_and_draws(tmp_path: Path) -> None:
    """The faces in pixels of the upright photo, each with box, score and landmarks; drawn where asked."""
    drawn = tmp_path / "drawn.png"
    result = run("detect", PHOTO, "--draw", drawn)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["width"], found["height"]) == (512, 512)
    (face,) = found["faces"]
    assert len(face["box"]) == 4
    assert face["score"] > 0.8
    assert set(face["landmarks"]) == {"left_eye", "right_eye", "nose", "mouth_left", "mouth_right"}
    with Image.open(drawn) as image, Image.open(PHOTO) as photo:
        assert image.size == photo.size
        assert image.convert("RGB").tobytes() != photo.convert("RGB").tobytes()


def test_detect_does_not_load_the_diffusion_model() -> None:
    """Finding faces needs no torch."""
    script = "import sys, cli.detect; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
