"""Hundreds of hostile and odd uploads against the running service and its worker: each ends in an answer that
the OpenAPI document has, costs the service little time and memory, and leaves it and the worker well.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import PHOTO, Running
from hostile_pictures import Upload, hostile_uploads

MAX_SECONDS = 2
MAX_KILOBYTES = 400_000
UPLOADS = hostile_uploads()


@pytest.fixture(scope="module")
def documented(served: Running) -> dict[str, Any]:
    """Return what the service says it answers to an upload, by status."""
    document = httpx.get(f"{served.url}/openapi.json").json()
    responses: dict[str, Any] = document["paths"]["/anonymize"]["post"]["responses"]
    return responses


@pytest.fixture(scope="module")
def patient(served: Running) -> Iterator[httpx.Client]:
    """Return an HTTP client of the shared service that waits longer than the service does."""
    with httpx.Client(base_url=served.url, timeout=120) as client:
        yield client


def cpu_seconds(pid: int) -> float:
    """Return how long a process has computed, in all its threads."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_kilobytes(pid: int) -> int:
    """Return the most memory a process has had."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_the_corpus_is_large() -> None:
    """At least 150 uploads, none like another."""
    assert len({upload.name for upload in UPLOADS}) == len(UPLOADS) >= 150
    assert len({upload.content for upload in UPLOADS}) > 0.95 * len(UPLOADS)


@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload.name)
def test_a_hostile_upload_ends_in_a_documented_answer(
    patient: httpx.Client, served: Running, documented: dict[str, Any], upload: Upload
) -> None:
    """Refused with a problem, or a job that ends; within the time and memory of an honest upload."""
    service = served.children()["service"]
    begun = cpu_seconds(service)
    form = {"steps": "1", "faces": upload.faces, "format": "jpeg"}
    answer = patient.post("/anonymize", files={"image": upload.content}, data=form, params={"wait": 60})
    assert cpu_seconds(service) - begun < MAX_SECONDS
    assert peak_kilobytes(service) < MAX_KILOBYTES
    assert str(answer.status_code) in documented
    assert answer.headers["content-type"] in documented[str(answer.status_code)]["content"]
    body = answer.json()
    if answer.status_code == 200:
        code = body["error"]["code"] if body["error"] else body["status"]
    else:
        code = body["code"]
        assert body["status"] == answer.status_code
        assert "image" in body["detail"]
    assert code in upload.ends, body
    assert patient.get("/readyz").json() == {"status": "ready"}


def test_a_good_upload_works_after_all_that(api: httpx.Client) -> None:
    """The same service and worker make a good picture."""
    form = {"steps": "1"}
    answer = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=form, params={"wait": 60})
    assert answer.json()["status"] == "succeeded"
    assert api.get(answer.json()["links"]["result"]).status_code == 200
