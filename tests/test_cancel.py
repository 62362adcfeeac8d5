"""The ends of a job before its time: canceled, and deleted with every byte of it."""

import os
import signal
import threading
from datetime import datetime
from typing import Any

import httpx
from conftest import PHOTO, Alone, Running, start_serving, stop_serving, wait_for_end
from redis import Redis

from jobs.contract import Model, Outcome, PictureResult, Progress, Status
from model.checkpoint import Checkpoint
from model.engine import Engine
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.photo import Pixels
from model.pipeline import Faces, Made, Pipeline, Sampling
from model.replace import OnFaceStep
from worker.metrics import Metrics
from worker.run import JobRunner
from worker.watch import Watch

LONG = {"steps": "1000", "seed": "1", "faces": "aligned"}
SHORT = {"steps": "1", "faces": "aligned"}


def submit(api: httpx.Client, **data: str) -> dict[str, Any]:
    """Submit the sample photo and return the job."""
    answer = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=data)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def wait_for_step(api: httpx.Client, job: dict[str, Any]) -> None:
    """Poll until the job is under way."""
    pause = threading.Event()
    for _ in range(600):
        if (api.get(job["links"]["self"]).json()["progress"] or {}).get("step", 0) > 0:
            return
        pause.wait(0.05)
    raise AssertionError("the job did not begin")


def bytes_of(redis: Redis, job_id: str) -> list[str]:
    """Return every key that holds something of a job, in its name or in its value."""
    redis.config_set("rdbcompression", "no")  # so that DUMP shows values as they are
    found = []
    for key in redis.scan_iter():
        value = redis.dump(key) or b""
        if job_id.encode() in key or job_id.encode() in value:
            found.append(key.decode())
    return found


def test_a_queued_job_is_canceled(queue_only: httpx.Client, alone: Alone) -> None:
    """It is out of the queue, its upload is gone, the next one moves up, and it stays canceled."""
    first, second = submit(queue_only, **SHORT), submit(queue_only, **SHORT)
    assert second["queue"]["position"] == 2
    answer = queue_only.post(first["links"]["cancel"])
    assert answer.status_code == 200
    canceled = answer.json()
    assert (canceled["status"], canceled["error"], canceled["queue"]) == ("canceled", None, None)
    assert canceled["started_at"] is None
    assert canceled["created_at"] < canceled["finished_at"] < canceled["expires_at"]
    assert bytes_of(alone.redis, first["id"]) == [f"face-anon:job:{first['id']}"]
    assert queue_only.get(second["links"]["self"]).json()["queue"]["position"] == 1
    assert queue_only.post(first["links"]["cancel"]).json()["finished_at"] == canceled["finished_at"]
    assert queue_only.get(first["links"]["result"]).json()["code"] == "job_canceled"
    assert alone.store.start(first["id"]) is None


def test_a_running_job_is_canceled(api: httpx.Client) -> None:
    """The worker drops it, for the next job; it never comes back, and is no failure."""
    job = submit(api, **LONG)
    wait_for_step(api, job)
    following = submit(api, **SHORT)
    canceled = api.post(job["links"]["cancel"]).json()
    assert canceled["status"] == "canceled"
    assert canceled["error"] is None
    ended = wait_for_end(api, following)
    assert ended["status"] == "succeeded"
    assert api.get(job["links"]["self"]).json() == canceled
    assert canceled["progress"]["step"] < 1000


def test_a_cancel_takes_effect_within_a_step(
    queue_only: httpx.Client, alone: Alone, tiny: Checkpoint
) -> None:
    """After the step in which the worker hears of it, no other is made, and the outcome stays."""
    job = submit(queue_only, **LONG)
    seen: list[int] = []

    class CanceledAtStepThree(Pipeline):
        def anonymize(
            self,
            pixels: Pixels,
            sampling: Sampling,
            *,
            faces: Faces = Faces.ALL,
            degree: float | None = None,
            max_faces: int = 32,
            on_step: OnFaceStep | None = None,
        ) -> Made:
            def watched(face: int, faces: int, done: int, steps: int) -> None:
                seen.append(done)
                assert on_step
                on_step(face, faces, done, steps)
                if done == 3:
                    alone.store.cancel(job["id"])
                    while True:  # until it raises
                        on_step(face, faces, done, steps)

            return super().anonymize(
                pixels, sampling, faces=faces, degree=degree, max_faces=max_faces, on_step=watched
            )

    model = Model(name="tiny", revision="1", resolution=64, demonstration=False)
    watch, stopping = Watch(alone.redis), threading.Event()
    watching = threading.Thread(target=watch.listen, args=(stopping,))
    watching.start()
    try:
        with Engine(tiny, slots=1) as engine:
            pipeline = CanceledAtStepThree(engine, FaceFinder(threads=1), DlibFaceEmbedder())
            JobRunner(alone.store, pipeline, model, watch, Metrics(1, engine)).run(job["id"])
    finally:
        stopping.set()
        watching.join()
    assert seen == [0, 1, 2, 3]
    assert queue_only.get(job["links"]["self"]).json()["status"] == "canceled"


def test_a_finished_job_is_returned_as_it_is(api: httpx.Client) -> None:
    """Cancelling comes too late: 200, and the picture is still there."""
    ended = wait_for_end(api, submit(api, **SHORT))
    answer = api.post(ended["links"]["cancel"])
    assert (answer.status_code, answer.json()) == (200, ended)
    assert api.get(ended["links"]["result"]).status_code == 200


def test_an_unknown_job_cannot_be_ended(api: httpx.Client) -> None:
    """404, for both ends."""
    for answer in (api.post("/jobs/0123/cancel"), api.delete("/jobs/0123")):
        assert answer.status_code == 404
        assert answer.json()["code"] == "job_not_found"


def test_a_deleted_job_leaves_no_byte(queue_only: httpx.Client, alone: Alone) -> None:
    """Queued or finished: no key and no value in the whole Redis names it, and it is unknown."""
    queued, finished = submit(queue_only, **SHORT), submit(queue_only, **SHORT)
    started = alone.store.start(finished["id"])
    assert started
    outcome = Outcome(
        status=Status.SUCCEEDED,
        finished_at=datetime.fromisoformat(finished["created_at"]),
        result=PictureResult(media_type="image/png", width=1, height=1, faces=[]),
    )
    assert alone.store.publish(started[0], outcome, b"picture")
    assert queue_only.get(finished["links"]["result"]).content == b"picture"
    for job in (queued, finished):
        assert bytes_of(alone.redis, job["id"])
        answer = queue_only.delete(job["links"]["self"])
        assert (answer.status_code, answer.content) == (204, b"")
        assert bytes_of(alone.redis, job["id"]) == []
        for path in ("self", "result"):
            assert queue_only.get(job["links"][path]).status_code == 404
        assert queue_only.delete(job["links"]["self"]).status_code == 404


def test_a_worker_cannot_bring_a_deleted_job_back(queue_only: httpx.Client, alone: Alone) -> None:
    """What a worker starts, reports and publishes after the deletion leaves nothing."""
    job = submit(queue_only, **SHORT)
    started = alone.store.start(job["id"])
    assert started
    assert alone.store.is_wanted(job["id"])
    queue_only.delete(job["links"]["self"])
    assert not alone.store.is_wanted(job["id"])
    assert not alone.store.report(job["id"], Progress(fraction=0.5, face=1, faces=1, step=1, steps=2))
    outcome = Outcome(status=Status.SUCCEEDED, finished_at=datetime.fromisoformat(job["created_at"]))
    assert not alone.store.publish(started[0], outcome, b"picture")
    assert alone.store.start(job["id"]) is None
    assert bytes_of(alone.redis, job["id"]) == []


def test_a_running_job_is_deleted(api: httpx.Client, served: Running) -> None:
    """Its bytes are gone at once, the worker drops it, and in the end RQ knows nothing of it either."""
    job = submit(api, **LONG)
    wait_for_step(api, job)
    following = submit(api, **SHORT)
    assert api.delete(job["links"]["self"]).status_code == 204
    redis = Redis.from_url(served.redis_url())
    assert not [key for key in bytes_of(redis, job["id"]) if key.startswith("face-anon:")]
    assert wait_for_end(api, following)["status"] == "succeeded"
    assert bytes_of(redis, job["id"]) == []
    redis.close()


def test_a_canceled_job_is_not_done_again_when_its_worker_dies() -> None:
    """Kill -9 right after the cancel: the job that RQ queues again is over before it begins."""
    running = start_serving()
    try:
        with httpx.Client(base_url=running.url, timeout=30) as api:
            job = submit(api, **LONG)
            wait_for_step(api, job)
            worker = running.children()["worker"]
            os.kill(worker, signal.SIGSTOP)
            canceled = api.post(job["links"]["cancel"]).json()
            os.kill(worker, signal.SIGKILL)
            assert wait_for_end(api, submit(api, **SHORT))["status"] == "succeeded"
            assert api.get(job["links"]["self"]).json() == canceled
    finally:
        assert stop_serving(running) == 0
