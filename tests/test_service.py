"""The service as callers see it, with a real worker and a real Redis-compatible server behind it."""

import asyncio
import io
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest
from conftest import PHOTO, ROOT, TINY, Reference, serve_in_process, wait_for_end
from fastapi.testclient import TestClient
from PIL import ExifTags, Image

from jobs.changes import Changes
from jobs.store import JobStore, connect
from model.anonymize import anonymize_face, swap_face
from model.checkpoint import Checkpoint, checkpoint_revision
from service.app import create_app
from service.settings import Settings

NOWHERE = "redis://127.0.0.1:1"
BASIC = {"steps": "4", "seed": "7", "faces": "aligned"}


def photo() -> dict[str, bytes]:
    """Return the files of a valid upload."""
    return {"image": PHOTO.read_bytes()}


def encoded(image: Image.Image, picture_format: str) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=picture_format)
    return buffer.getvalue()


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem (RFC 9457) with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_a_photo_goes_in_and_a_picture_comes_back(
    api: httpx.Client, tiny: Checkpoint, reference: Reference
) -> None:
    """POST /anonymize, 202, polls, the picture: the bytes are those of the model called directly."""
    files = {"image": encoded(reference.driving, "PNG")}
    answer = api.post("/anonymize", files=files, data={**BASIC, "d": "1.2", "reference": "case 12"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert job["kind"] == "anonymize"
    assert job["reference"] == "case 12"
    assert job["parameters"] == {
        "d": 1.2,
        "seed": 7,
        "steps": 4,
        "guidance_scale": 4.0,
        "sampler": "ddpm",
        "faces": "aligned",
        "format": "png",
    }
    ended = wait_for_end(api, job)
    assert ended["status"] == "succeeded"
    assert ended["error"] is None
    assert ended["progress"] == {"fraction": 1.0, "face": 1, "faces": 1, "step": 4, "steps": 4}
    assert ended["created_at"] < ended["started_at"] < ended["finished_at"] < ended["expires_at"]
    assert ended["model"] == {"name": "tiny-checkpoint", "revision": checkpoint_revision(TINY)}
    assert ended["result"]["faces"] == [
        {
            "index": 0,
            "box": [0, 0, 64, 64],
            "score": 1.0,
            "status": "replaced",
            "seed": 7,
            "identity_distance": None,
            "warnings": [],
        }
    ]
    assert min(ended["timings"][stage] for stage in ("queue_ms", "detect_ms", "sample_ms", "encode_ms")) >= 0

    picture = api.get(ended["result"]["url"])
    assert picture.status_code == 200
    assert picture.headers["content-type"] == ended["result"]["media_type"] == "image/png"
    image = Image.open(io.BytesIO(picture.content))
    assert image.size == (ended["result"]["width"], ended["result"]["height"]) == (64, 64)
    direct = anonymize_face(tiny, reference.driving, seed=7, steps=4, degree=1.2)
    assert image.tobytes() == direct.tobytes()


def test_two_pictures_are_swapped(api: httpx.Client, tiny: Checkpoint, reference: Reference) -> None:
    """POST /swap gives the driving picture the source's identity; d is null."""
    files = {
        "source": encoded(reference.source, "PNG"),
        "driving": encoded(reference.driving, "PNG"),
    }
    job = api.post("/swap", files=files, data={**BASIC, "format": "png"}).json()
    assert job["parameters"]["d"] is None
    ended = wait_for_end(api, job)
    assert ended["status"] == "succeeded"
    image = Image.open(io.BytesIO(api.get(ended["result"]["url"]).content))
    direct = swap_face(tiny, reference.source, reference.driving, seed=7, steps=4)
    assert image.tobytes() == direct.tobytes()


@pytest.mark.parametrize(
    ("sent", "asked", "written"),
    [
        ("JPEG", None, "image/jpeg"),
        ("WEBP", None, "image/webp"),
        ("PNG", None, "image/png"),
        ("TIFF", None, "image/png"),
        ("BMP", None, "image/png"),
        ("AVIF", None, "image/avif"),
        ("PNG", "jpeg", "image/jpeg"),
    ],
)
def test_the_format_is_as_sent_or_as_asked(
    api: httpx.Client, reference: Reference, sent: str, asked: str | None, written: str
) -> None:
    """Each readable format goes in; out comes the format asked for, or as sent, or PNG."""
    data = {**BASIC, "steps": "1", **({"format": asked} if asked else {})}
    files = {"image": encoded(reference.driving, sent)}
    ended = wait_for_end(api, api.post("/anonymize", files=files, data=data).json())
    assert ended["result"]["media_type"] == written
    picture = api.get(ended["result"]["url"])
    assert Image.MIME[Image.open(io.BytesIO(picture.content)).format or ""] == written


def test_a_whole_photo_comes_back_with_its_face_replaced(api: httpx.Client) -> None:
    """By default every face is found and replaced in place; nothing of the upload's metadata comes back."""
    photo_file = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 12.0, 30.25)
    exif[ExifTags.Base.Make] = "Camera Maker 4711"
    with Image.open(PHOTO) as opened:
        opened.convert("RGB").save(photo_file, "JPEG", quality=95, exif=exif)
    assert b"Camera Maker 4711" in photo_file.getvalue()
    job = api.post(
        "/anonymize", files={"image": photo_file.getvalue()}, data={"steps": "2", "seed": "5"}
    ).json()
    assert job["parameters"]["faces"] == "all"
    ended = wait_for_end(api, job)
    assert ended["status"] == "succeeded", ended
    (face,) = ended["result"]["faces"]
    assert (face["status"], face["seed"]) == ("replaced", 5)
    assert face["score"] > 0.8
    x, y, width, height = face["box"]
    assert (150 < x < 190, 50 < y < 90, 80 < width < 140, 80 < height < 140) == (True,) * 4
    assert face["identity_distance"] > 0.3
    picture = api.get(ended["result"]["url"]).content
    image = Image.open(io.BytesIO(picture))
    assert (image.format, image.size) == ("JPEG", (512, 512))
    assert b"Camera Maker" not in picture
    assert b"Exif" not in picture
    assert b"compositeWithTrainedAlgorithmicMedia" in picture


def test_a_heic_photo_is_read(api: httpx.Client) -> None:
    """What iPhones send goes in; PNG comes out."""
    upload = (ROOT / "samples" / "turned.heic").read_bytes()
    job = api.post("/anonymize", files={"image": upload}, data={"steps": "1"}).json()
    ended = wait_for_end(api, job)
    assert ended["status"] == "succeeded"
    assert ended["result"]["media_type"] == "image/png"


def test_a_photo_without_a_face_comes_back_unchanged(api: httpx.Client) -> None:
    """No face, no change: the same pixels, `faces` empty, a warning, and no mark of a model."""
    gradient = Image.linear_gradient("L").convert("RGB")
    job = api.post("/anonymize", files={"image": encoded(gradient, "PNG")}, data={"steps": "1"}).json()
    ended = wait_for_end(api, job)
    assert ended["result"]["faces"] == []
    assert any("no face was found" in warning for warning in ended["warnings"])
    picture = api.get(ended["result"]["url"]).content
    assert Image.open(io.BytesIO(picture)).tobytes() == gradient.tobytes()
    assert b"DigitalSourceType" not in picture


def test_a_swap_needs_a_face_in_the_source(api: httpx.Client) -> None:
    """A source without a face is the job's problem, in words, with a code."""
    files = {"source": encoded(Image.linear_gradient("L"), "PNG"), "driving": PHOTO.read_bytes()}
    ended = wait_for_end(api, api.post("/swap", files=files, data={"steps": "1"}).json())
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "no_face_in_source"
    assert ended["error"]["retryable"] is False
    assert_problem(api.get(ended["links"]["result"]), 409, "job_failed")


def test_a_missing_seed_is_drawn_and_echoed(api: httpx.Client) -> None:
    """Two jobs without a seed get seeds of their own."""
    seeds = {
        api.post("/anonymize", files=photo(), data={"steps": "1"}).json()["parameters"]["seed"]
        for _ in range(2)
    }
    assert len(seeds) == 2


def test_progress_is_seen_while_the_job_runs(api: httpx.Client) -> None:
    """Step k of N reaches the caller before the end, and never goes back."""
    job = api.post("/anonymize", files=photo(), data={"steps": "100", "seed": "1"}).json()
    steps = []
    while job["status"] in {"queued", "running"}:
        job = api.get(job["links"]["self"]).json()
        if job["status"] == "running" and job["progress"]:
            steps.append(job["progress"]["step"])
            assert job["progress"]["fraction"] == job["progress"]["step"] / 100
    assert job["status"] == "succeeded"
    assert steps == sorted(steps)
    assert len({step for step in steps if 0 < step < 100}) >= 2


def test_a_high_degree_is_warned_about(api: httpx.Client) -> None:
    """Above 1.5 the job says that faces stop being faces."""
    high = api.post("/anonymize", files=photo(), data={**BASIC, "d": "1.6"}).json()
    usual = api.post("/anonymize", files=photo(), data=BASIC).json()
    assert any("1.6" in warning for warning in high["warnings"])
    assert usual["warnings"] == []


@pytest.mark.parametrize(
    ("upload", "status", "code"),
    [
        (b"", 400, "empty_upload"),
        (b"this is text, not a picture", 415, "not_a_picture"),
        (PHOTO.read_bytes()[:2000], 415, "broken_picture"),
        (b"\x89PNG\r\n\x1a\n", 415, "broken_picture"),
        (b"GIF89a" + bytes(100), 415, "not_a_picture"),
    ],
)
def test_a_broken_upload_is_a_problem_with_a_code(
    api: httpx.Client, upload: bytes, status: int, code: str
) -> None:
    """What is no picture, or breaks off, is refused at the door, and nothing is queued."""
    problem = assert_problem(api.post("/anonymize", files={"image": upload}), status, code)
    assert "image" in problem["detail"]


def test_every_truncation_of_a_jpeg_is_a_problem(api: httpx.Client) -> None:
    """A JPEG that breaks off anywhere is refused."""
    whole = encoded(Image.open(PHOTO).convert("RGB"), "JPEG")
    for share in (0.02, 0.3, 0.6, 0.98):
        answer = api.post("/anonymize", files={"image": whole[: int(len(whole) * share)]})
        assert answer.status_code == 415, (share, answer.text)
        assert answer.json()["code"] in {"broken_picture", "not_a_picture"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d", "2.1"),
        ("d", "-0.1"),
        ("d", "nan"),
        ("d", "far"),
        ("seed", "-1"),
        ("seed", str(2**63)),
        ("steps", "0"),
        ("steps", "1001"),
        ("guidance_scale", "21"),
        ("guidance_scale", "inf"),
        ("sampler", "magic"),
        ("faces", "some"),
        ("format", "gif"),
        ("reference", "x" * 201),
    ],
)
def test_a_wrong_parameter_is_named(api: httpx.Client, field: str, value: str) -> None:
    """422 names the field, echoes the value and says the limit."""
    problem = assert_problem(
        api.post("/anonymize", files=photo(), data={field: value}), 422, "invalid_parameter"
    )
    (wrong,) = problem["errors"]
    assert wrong["field"] == field
    assert wrong["value"] == value[:100]
    assert wrong["reason"]


def test_a_missing_file_is_named(api: httpx.Client) -> None:
    """422 names the file that was not sent."""
    problem = assert_problem(api.post("/swap", files={"source": b"x"}), 422, "invalid_parameter")
    assert problem["errors"][0]["field"] == "driving"


def test_unknown_jobs_and_paths_are_problems(api: httpx.Client) -> None:
    """404 and 405 of the framework are problems too."""
    assert_problem(api.get("/jobs/0123456789abcdef"), 404, "job_not_found")
    assert_problem(api.get("/jobs/0123456789abcdef/result"), 404, "job_not_found")
    assert_problem(api.get("/nowhere"), 404, "not_found")
    assert_problem(api.get("/anonymize"), 405, "method_not_allowed")


def test_an_unfinished_job_has_no_picture_yet(api: httpx.Client) -> None:
    """409 while the job is queued or runs."""
    job = api.post("/anonymize", files=photo(), data={"steps": "1000", "seed": "1"}).json()
    answer = api.get(job["links"]["result"])
    assert answer.json()["code"] in {"job_queued", "job_running"}
    problem = assert_problem(answer, 409, answer.json()["code"])
    assert "no picture" in problem["detail"]
    assert api.post(job["links"]["cancel"]).json()["status"] == "canceled"
    assert_problem(api.get(job["links"]["result"]), 409, "job_canceled")


def test_health_readiness_and_the_contract(api: httpx.Client) -> None:
    """The process lives, a worker is ready, and every endpoint is in the OpenAPI document."""
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json() == {"status": "ready"}
    document = api.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/anonymize",
        "/swap",
        "/jobs/{job_id}",
        "/jobs/{job_id}/result",
        "/jobs/{job_id}/events",
        "/jobs/{job_id}/cancel",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    problems = document["paths"]["/anonymize"]["post"]["responses"]
    assert {"200", "202", "400", "413", "415", "422", "429", "503"} <= set(problems)
    assert {"200", "304", "404", "422", "503"} <= set(document["paths"]["/jobs/{job_id}"]["get"]["responses"])
    assert {"204", "404", "503"} <= set(document["paths"]["/jobs/{job_id}"]["delete"]["responses"])
    assert "HTTPValidationError" not in str(document), "the framework's errors are problems too"
    assert document["components"]["schemas"]["Parameters"]["properties"]["seed"]["exclusiveMaximum"] == 2**63
    assert "e+18" not in api.get("/openapi.json").text


def test_the_documented_examples_are_what_runs(api: httpx.Client) -> None:
    """Of a problem and of a wrong field: the answers to such requests, word for word."""
    schemas = api.get("/openapi.json").json()["components"]["schemas"]

    def examples(schema: str) -> dict[str, object]:
        properties = schemas[schema]["properties"].items()
        return {name: said["examples"][0] for name, said in properties if "examples" in said}

    problem = api.post("/anonymize", files={"image": b"this is text, not a picture"}).json()
    expected = examples("ProblemAnswer")
    assert len(str(expected.pop("request_id"))) == len(problem["request_id"])
    assert expected.items() <= problem.items()
    (wrong,) = api.post("/anonymize", files=photo(), data={"d": "3.5"}).json()["errors"]
    assert wrong == examples("InvalidField")


def in_process(store: JobStore, **settings: int) -> httpx.Client:
    """Return a client of an app of its own, with other limits."""
    return TestClient(
        create_app(store, Changes(NOWHERE), Settings(**settings)), raise_server_exceptions=False
    )


@pytest.fixture
def nowhere() -> JobStore:
    """Return a job store on a Redis that does not answer."""
    return JobStore(connect(NOWHERE))


def test_limits_are_settings(nowhere: JobStore) -> None:
    """Bytes and pixels over the limit are 413, with the numbers, before anything is stored."""
    api = in_process(nowhere, max_upload_bytes=1000, max_pixels=100)
    small = encoded(Image.new("RGB", (11, 10)), "PNG")
    pixels = assert_problem(api.post("/anonymize", files={"image": small}), 413, "too_many_pixels")
    assert "11 x 10 = 110 pixels, the limit is 100" in pixels["detail"]
    large = assert_problem(api.post("/anonymize", files={"image": bytes(1001)}), 413, "upload_too_large")
    assert "1001 bytes, the limit is 1000" in large["detail"]
    declared = api.post("/anonymize", files={"image": bytes(100_000)})
    assert_problem(declared, 413, "request_too_large")


def test_a_body_without_a_length_is_counted_as_it_streams(nowhere: JobStore) -> None:
    """Chunked uploads meet the same limit."""
    api = in_process(nowhere, max_upload_bytes=1000)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    sent = api.post(
        "/anonymize",
        content=iter([head, *[bytes(10_000)] * 20]),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert_problem(sent, 413, "request_too_large")


def test_without_redis_callers_are_told_to_come_back(nowhere: JobStore) -> None:
    """503 with Retry-After, never a 500 or a traceback."""
    api = in_process(nowhere)
    for answer in (api.post("/anonymize", files=photo()), api.get("/jobs/x")):
        assert_problem(answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert assert_problem(api.get("/readyz"), 503, "not_ready")["missing"] == ["redis"]


def test_the_service_does_not_import_torch() -> None:
    """It starts in a process that never loads a network."""
    script = (
        "import sys, service.main;"
        "heavy = {'torch', 'diffusers', 'transformers', 'model'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("field", ["d", "seed", "steps", "guidance_scale", "sampler", "faces", "format"])
def test_an_empty_field_is_a_problem(queue_only: httpx.Client, field: str) -> None:
    """A field that is sent empty is not taken for one that was left out."""
    files = {"image": PHOTO.read_bytes()}
    problem = assert_problem(
        queue_only.post("/anonymize", files=files, data={field: ""}), 422, "invalid_parameter"
    )
    assert problem["errors"][0]["field"] == field
    assert "leave it out" in problem["detail"]
    assert queue_only.post("/anonymize", files=files, data={"reference": ""}).status_code == 202


def test_it_stops_where_a_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens for changes may lose a cancellation (redis-py does, one time in fifty as it connects)."""
    lost = []

    async def listen(_changes: Changes) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            lost.append(1)
        await asyncio.sleep(3600)

    monkeypatch.setattr(Changes, "listen", listen)

    def start_and_stop() -> None:
        with serve_in_process() as running:
            assert running.api.get("/healthz").status_code == 200

    stopping = threading.Thread(target=start_and_stop, daemon=True)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    assert lost == [1]
