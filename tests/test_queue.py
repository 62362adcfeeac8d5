"""How long a queued job will wait, from what was measured."""

from datetime import UTC, datetime
from typing import Any

import httpx
from conftest import PHOTO, Alone, wait_for_end
from test_waiting import start

from jobs.contract import Model, Outcome, Status, Timings
from jobs.store import RATED_JOBS

MODEL = Model(name="none", revision="1", resolution=64, demonstration=False)


def submit(api: httpx.Client, steps: int = 1) -> dict[str, Any]:
    """Submit the sample photo as one aligned face."""
    form = {"steps": str(steps), "faces": "aligned"}
    job: dict[str, Any] = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=form).json()
    return job


def do_job(api: httpx.Client, alone: Alone, seconds: int, *, failed: bool = False) -> None:
    """Submit a job and end it as a worker does, which says that it took so long."""
    job = submit(api)
    request = start(alone.store, job["id"])
    timings = Timings(queue_ms=99_000, detect_ms=100, sample_ms=seconds * 1000 - 300, encode_ms=200)
    status = Status.FAILED if failed else Status.SUCCEEDED
    alone.store.publish(request, Outcome(status=status, finished_at=datetime.now(UTC), timings=timings), None)
    alone.store.queue.remove(job["id"])


def test_the_eta_follows_the_measured_rate(queue_only: httpx.Client, alone: Alone) -> None:
    """Null until a job has ended and a worker is there; then places times the mean, shared by the workers."""
    submit(queue_only)
    waiting = submit(queue_only)
    path = waiting["links"]["self"]

    def place() -> dict[str, Any]:
        queue: dict[str, Any] = queue_only.get(path).json()["queue"]
        return queue

    assert place() == {"position": 2, "eta_seconds": None}
    alone.store.announce("first", MODEL)
    assert place()["eta_seconds"] is None
    do_job(queue_only, alone, seconds=10)
    assert place() == {"position": 2, "eta_seconds": 15.0}
    do_job(queue_only, alone, seconds=20)
    assert place()["eta_seconds"] == 22.5
    do_job(queue_only, alone, seconds=90, failed=True)
    assert place()["eta_seconds"] == 22.5
    alone.store.announce("second", MODEL)
    assert place()["eta_seconds"] == 11.2
    for _ in range(RATED_JOBS):
        do_job(queue_only, alone, seconds=4)
    assert place()["eta_seconds"] == 3.0
    alone.store.withdraw("first")
    alone.store.withdraw("second")
    assert place()["eta_seconds"] is None


def test_a_real_worker_gives_a_rate(api: httpx.Client) -> None:
    """After one job the next one that waits is told how long."""
    wait_for_end(api, submit(api))
    jobs = [submit(api, steps=1000) for _ in range(6)]  # the worker has four places
    assert jobs[-1]["queue"]["eta_seconds"] >= 0
    for job in jobs:
        api.delete(job["links"]["self"])
