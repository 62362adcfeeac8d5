"""The Python client where the service is closed: API keys, limits on what is taken in, a root path."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FACE_ANON, PHOTO, ROOT, Alone, serve_alone
from gateway import gateway

from face_anon_client import (
    AuthenticationError,
    Client,
    InvalidRequestError,
    JobNotFoundError,
    Parameters,
    RateLimitedError,
    Retries,
    Status,
)

ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
QUICK: Parameters = {"steps": 1, "faces": "aligned"}
LARGE = 10_000_000


@pytest.fixture(scope="module")
def closed() -> Iterator[Alone]:
    """Run a service with two keys, which takes no large uploads and holds two jobs."""
    with serve_alone(
        api_keys=f"alice:{ALICE},bob:{BOB}", max_upload_bytes=LARGE // 10, max_queued_jobs=2
    ) as running:
        yield running


def test_a_key_opens_its_own_jobs(closed: Alone) -> None:
    """To another key the job is the same as none; all there is to do with it goes with its own."""
    closed.redis.flushall()
    with Client(closed.url, ALICE) as alice, Client(closed.url, api_key=BOB) as bob:
        job = alice.anonymize(PHOTO, **QUICK)
        with pytest.raises(JobNotFoundError):
            bob.job(job.id)
        assert alice.job(job.id).cancel().refresh().state.status == "canceled"
        job.delete()


@pytest.mark.parametrize("key", ["", "wrong-key-0123456789"])
def test_a_wrong_key_is_told_at_once(closed: Alone, key: str) -> None:
    """Also with an upload that the service does not read to its end, and without a second try."""
    with Client(closed.url, key, retries=Retries(attempts=1)) as client:
        for upload in (PHOTO.read_bytes(), bytes(LARGE)):
            with pytest.raises(AuthenticationError) as caught:
                client.anonymize(upload)
            assert (caught.value.status, caught.value.retryable) == (401, False)
            assert not key or key not in str(caught.value)


def test_limits_are_told_as_such(closed: Alone) -> None:
    """An upload over the limit is a 413 even where the connection ends in its midst; a full queue a 429."""
    closed.redis.flushall()
    with Client(closed.url, ALICE, retries=Retries(attempts=1)) as client:
        with pytest.raises(InvalidRequestError) as too_large:
            client.anonymize(bytes(LARGE))
        assert too_large.value.status == 413
        for _ in range(2):
            client.anonymize(PHOTO, **QUICK)
        with pytest.raises(RateLimitedError) as full:
            client.anonymize(PHOTO, **QUICK)
    assert full.value.code == "queue_full"
    assert full.value.retry_after is not None
    assert full.value.retryable


def test_a_key_over_its_rate_waits() -> None:
    """The service's own `Retry-After` is kept to, so the call succeeds; without a second try it is a 429."""
    limits = {"requests_per_second": 0.25, "request_burst": 1, "root_path": "/tools/faces"}
    with serve_alone(api_keys=f"alice:{ALICE}", **limits) as running:
        with gateway(running.url, "/tools/faces") as between, Client(between.url, ALICE) as client:
            job = client.anonymize(PHOTO, **QUICK)
            assert job.state.links.self == f"/tools/faces/jobs/{job.id}"
            assert job.refresh().status is Status.QUEUED
            first, *refused, last = between.lines()
            assert (first, last) == ("POST /anonymize", f"GET /jobs/{job.id}")
            assert set(refused) == {last}
        hasty = Client(running.url, ALICE, retries=Retries(attempts=1))
        with hasty, pytest.raises(RateLimitedError) as over:
            hasty.job(job.id)
        assert over.value.retry_after is not None
        assert over.value.request_id


def test_the_command_takes_its_key_from_a_file(closed: Alone, tmp_path: Path) -> None:
    """With a line end, as editors leave it; a wrong one stops the run in words and is not shown."""
    closed.redis.flushall()
    for content, said in ((f"{ALICE}\n", "is not a picture we read"), (BOB[:-1], "stopped: ")):
        (tmp_path / "key").write_text(content)
        (tmp_path / "text.jpg").write_text("no picture")
        arguments = [tmp_path / "text.jpg", "--out", tmp_path / "out", "--url", closed.url]
        ended = subprocess.run(
            [*FACE_ANON, "submit", *arguments, "--api-key-file", tmp_path / "key"],
            cwd=ROOT,
            env={**os.environ, "FACE_ANON_API_KEY": "not-this-one"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert said in ended.stderr
        assert content.strip() not in ended.stderr
