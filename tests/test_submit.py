"""`face-anon submit`: folders of photos through the real service, some at a time, resumable, reported."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import FACE_ANON, PHOTO, ROOT, Alone, Running, eventually
from gateway import Busy, gateway
from PIL import Image, ImageDraw
from test_waiting import finish, start

from cli.photos import PlanError, find_photos

QUICK = ("--steps", "1", "--seed", "7")


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a submission."""
    return [*FACE_ANON, "submit", *map(str, arguments)]


def submit(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a submission to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def report_of(out: Path) -> dict[str, Any]:
    """Return the JSON report in an output folder, its photos by their file names."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    report["photos"] = {Path(row["photo"]).name: row for row in report["photos"]}
    return report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with photos of all kinds, one that is none among them."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(PHOTO, folder / "astronaut.png")
    shutil.copy(ROOT / "samples" / "turned.heic", folder / "sub" / "turned.HEIC")
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").save(folder / "sub" / "photo.jpeg")
    empty = Image.new("RGB", (200, 160), "white")
    ImageDraw.Draw(empty).rectangle((30, 30, 90, 90), fill="green")
    empty.save(folder / "nobody.webp")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no photo by its suffix")
    (folder / ".hidden.png").write_bytes(PHOTO.read_bytes())
    return folder


def test_a_folder_with_a_bad_file(served: Running, folder: Path, tmp_path: Path) -> None:
    """The good ones are written beside each other as they lay, the bad one is named, the exit code is 1.

    Run again, only the bad one is sent; with another parameter, each is.
    """
    out = tmp_path / "out"
    originals = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with gateway(served.url) as between:
        first = submit(folder, "--out", out, "--url", between.url, *QUICK)
        assert first.returncode == 1, first.stderr
        written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        assert written - {"report.json", ".face-anon-submit.jsonl"} == {
            "astronaut.png",
            "nobody.webp",
            "sub/photo.jpeg",
            "sub/turned.png",
        }
        report = report_of(out)
        rows = report["photos"]
        totals = report["totals"]
        assert (totals["photos"], totals["succeeded"], totals["failed"], totals["earlier"]) == (5, 4, 1, 0)
        assert totals["faces"] == totals["replaced"] + totals["redacted"] >= 3
        assert rows["broken.jpg"]["code"] == "not_a_picture"
        assert rows["astronaut.png"]["found"] == rows["astronaut.png"]["replaced"] == 1
        assert (rows["astronaut.png"]["seed"], rows["astronaut.png"]["distance"] > 0) == (7, True)
        assert rows["nobody.webp"]["look"] == ["no face was found"]
        told = first.stderr.partition("look at these:")[2].partition("failed:")
        assert f"{out / 'nobody.webp'}: no face was found" in told[0]
        assert "broken.jpg: image is not a picture we read" in told[2]
        assert len(between.lines("DELETE .*")) == 4  # nothing of the photos stays with the service

        between.heard.clear()
        again = submit(folder, "--out", out, "--url", between.url, *QUICK)
        assert again.returncode == 1
        assert between.lines() == ["POST /anonymize"]
        assert report_of(out)["totals"]["earlier"] == 4
        assert report_of(out)["photos"]["nobody.webp"]["look"] == ["no face was found"]

        between.heard.clear()
        (folder / "broken.jpg").unlink()
        changed = submit(folder, "--out", out, "--url", between.url, *QUICK, "--d", "1.0", "--format", "webp")
        assert changed.returncode == 0, changed.stderr
        assert len(between.lines("POST .*")) == 4
        assert (out / "sub" / "turned.webp").is_file()
    for path, content in originals.items():
        assert not path.exists() or path.read_bytes() == content


def test_a_killed_run_is_picked_up(alone: Alone, queue_only: httpx.Client, tmp_path: Path) -> None:
    """After kill -9 in mid-job the same command waits for the same jobs: none is made twice."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        shutil.copy(PHOTO, folder / f"{name}.png")
        with (folder / f"{name}.png").open("ab") as photo:
            photo.write(name.encode())  # bytes of its own
    arguments = (folder, "--out", out, "--url", alone.url, *QUICK, "--parallel", "3")
    first = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    assert eventually(lambda: alone.store.queued() == 3, 60)
    finish_one(alone)
    assert eventually(lambda: len(list(out.glob("*.png"))) == 1)
    first.kill()
    first.wait()
    with (out / ".face-anon-submit.jsonl").open("a") as journal:
        journal.write('{"source": "cut o')
    second = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(2):
        finish_one(alone)
    _, told = second.communicate(timeout=120)
    assert second.returncode == 0, told
    assert alone.store.queued() == 0
    report = report_of(out)
    assert (report["totals"]["succeeded"], report["totals"]["failed"]) == (3, 0)
    assert len({row["job"] for row in report["photos"].values()}) == 3
    assert all((out / f"{name}.png").read_bytes() == b"picture" for name in "abc")
    assert not list(out.glob("*.part"))
    assert queue_only.get("/healthz").status_code == 200


def finish_one(alone: Alone) -> None:
    """Do the job of a worker for one queued job."""
    for key in alone.redis.scan_iter("face-anon:upload:*"):
        job_id = key.decode().split(":")[2]
        finish(alone.store, start(alone.store, job_id))
        return
    pytest.fail("there is no queued job")


@pytest.mark.usefixtures("queue_only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cancels_its_jobs(alone: Alone, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C cancels what runs and reports; the same command sends the photo anew."""
    arguments = (PHOTO, "--out", tmp_path, "--url", alone.url, *QUICK)
    running = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: alone.store.queued() == 1, 60)
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on where this one stopped" in told
    assert "Traceback" not in told
    assert alone.store.queued() == 0
    report = report_of(tmp_path)
    assert (report["interrupted"], report["totals"]["not_done"]) == (True, 1)
    second = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    assert eventually(lambda: alone.store.queued() == 1, 60)
    finish_one(alone)
    assert second.wait(60) == 0
    assert (tmp_path / "astronaut.png").read_bytes() == b"picture"


@pytest.mark.usefixtures("queue_only")
def test_no_file_is_overwritten(alone: Alone, tmp_path: Path) -> None:
    """Neither the original, nor a file that no earlier run has written: said before anything is sent."""
    original = tmp_path / "astronaut.png"
    shutil.copy(PHOTO, original)
    into_itself = submit(original, "--out", tmp_path, "--url", alone.url)
    assert into_itself.returncode == 1
    assert report_of(tmp_path)["photos"]["astronaut.png"]["code"] == "output_exists"
    assert original.read_bytes() == PHOTO.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "astronaut.webp").write_text("somebody's")
    other = submit(original, "--out", tmp_path / "out", "--url", alone.url)
    assert "astronaut.webp is there, and was not written by an earlier run" in other.stderr
    assert alone.store.queued() == 0


@pytest.mark.usefixtures("queue_only")
def test_what_would_fail_for_all_stops_the_run(alone: Alone, tmp_path: Path) -> None:
    """A wrong key or parameter is said once, and the other photos are not sent."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abcdef":
        shutil.copy(PHOTO, photos / f"{name}.png")
    with gateway(alone.url) as between:
        arguments = (photos, "--out", tmp_path / "out", "--url", between.url, "--parallel", "2")
        sampler = submit(*arguments, "--sampler", "none")
        assert sampler.returncode == 1
        assert "stopped: sampler: " in sampler.stderr
        assert len(between.heard) <= 2
        between.troubles = [("POST .*", Busy(401, code="invalid_key"))] * 6
        key = submit(*arguments, FACE_ANON_API_KEY="wrong-key")
        assert key.returncode == 1
        assert "stopped: come back later (401 invalid_key)" in key.stderr
        assert "wrong-key" not in key.stderr
        assert len(between.heard) <= 4
        assert between.heard[-1].headers["authorization"] == "Bearer wrong-key"
    assert report_of(tmp_path / "out")["totals"]["not_done"] == 6
    assert alone.store.queued() == 0


def test_a_swap_of_one_file(served: Running, tmp_path: Path) -> None:
    """The source's identity goes to the photo; another source is another job."""
    portrait = ROOT / "samples" / "turned.heic"
    arguments = ("--out", tmp_path / "out", "--url", served.url, "--faces", "largest", *QUICK)
    assert submit(PHOTO, *arguments, "--swap", PHOTO).returncode == 0
    first = (tmp_path / "out" / "astronaut.png").read_bytes()
    assert submit(PHOTO, *arguments, "--swap", portrait).returncode == 0
    assert (tmp_path / "out" / "astronaut.png").read_bytes() != first
    with_degree = submit(PHOTO, *arguments, "--swap", PHOTO, "--d", "1")
    assert with_degree.returncode == 2
    assert "a swap has no degree" in with_degree.stderr


def test_two_runs_do_not_share_a_folder(alone: Alone, queue_only: httpx.Client, tmp_path: Path) -> None:
    """The second is told so, and sends nothing."""
    arguments = (PHOTO, "--out", tmp_path, "--url", alone.url, *QUICK)
    first = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    assert eventually(lambda: alone.store.queued() == 1, 60)
    second = submit(*arguments)
    assert second.returncode == 1
    assert f"another face-anon submit is writing to {tmp_path}" in second.stderr
    assert alone.store.queued() == 1
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert queue_only.get("/healthz").status_code == 200


def test_each_photo_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Same name and another suffix: the suffix stays. Several folders: each under its name. Never twice."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "x.jpg", one / "x.heic", one / "y.png", two / "x.jpg", one / "out" / "x.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    photos = find_photos([one, two, one / "y.png"], one / "out")
    stems = {str(photo.source.relative_to(tmp_path)): str(photo.stem) for photo in photos}
    assert stems == {
        "one/x.heic": "one/x.heic",
        "one/x.jpg": "one/x.jpg",
        "one/y.png": "one/y",
        "two/x.jpg": "two/x",
    }
    by_name = {photo.source.name: photo for photo in find_photos([one], one / "out")}
    assert by_name["x.heic"].output("image/png") == Path("x.heic.png")
    assert by_name["y.png"].output("image/webp") == Path("y.webp")
    with pytest.raises(PlanError, match="would both be written to"):
        find_photos([one / "x.jpg", two / "x.jpg"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="there is no photo in"):
        find_photos([tmp_path / "empty"], tmp_path / "out")
