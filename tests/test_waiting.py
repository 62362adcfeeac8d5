"""Changes of jobs reach those who wait: long polls, Prefer, ETag and server-sent events."""

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import uvicorn
from conftest import PHOTO, Alone, eventually, serve_alone, wait_for_end

from jobs.changes import Changes
from jobs.contract import JobRequest, Outcome, PictureResult, Progress, Status
from jobs.store import JobStore
from service.app import create_app
from service.settings import Settings


def submit(api: httpx.Client, headers: dict[str, str] | None = None, **params: int) -> httpx.Response:
    """Submit the sample photo as one aligned face."""
    form = {"steps": "1", "faces": "aligned"}
    return api.post(
        "/anonymize", files={"image": PHOTO.read_bytes()}, data=form, headers=headers, params=params
    )


def start(store: JobStore, job_id: str) -> JobRequest:
    """Start a job as a worker does: take it from RQ's queue, and say so."""
    redis = store.queue.connection
    redis.lrem(store.queue.key, 1, job_id)
    redis.hset(f"rq:job:{job_id}", "status", "started")
    started = store.start(job_id)
    assert started
    return started[0]


def finish(store: JobStore, request: JobRequest) -> None:
    """End a job as a worker does."""
    result = PictureResult(media_type="image/png", width=1, height=1, faces=[])
    outcome = Outcome(status=Status.SUCCEEDED, finished_at=datetime.now(UTC), result=result)
    assert store.publish(request, outcome, b"picture")


class Stream:
    """An open event stream, read by hand."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.headers["content-type"].startswith("text/event-stream")
        self._lines = answer.iter_lines()

    def next_part(self) -> dict[str, str]:
        """Return the fields of the next event, a comment under the empty name; {} where the stream ends."""
        fields = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(": ")
            fields[name.rstrip(":")] = value
        return fields

    def next_job(self) -> dict[str, Any]:
        """Return the job of the next event."""
        part = self.next_part()
        assert part.get("event") == "job", part
        job: dict[str, Any] = json.loads(part["data"])
        return job


def test_a_long_poll_answers_at_the_end_of_the_job(queue_only: httpx.Client, alone: Alone) -> None:
    """Start and progress do not answer it, the end does, at once."""
    job = submit(queue_only).json()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue_only.get, job["links"]["self"], params={"wait": 30})
        request = start(alone.store, job["id"])
        alone.store.report(job["id"], Progress(fraction=0.5, face=1, faces=1, step=1, steps=2))
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        finish(alone.store, request)
        published = time.monotonic()
        answer = waiting.result(timeout=30)
    assert time.monotonic() - published < 20  # long before the poll's own time is over
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert "preference-applied" not in answer.headers
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_long_poll_hears_of_an_early_end(queue_only: httpx.Client, end: str) -> None:
    """Canceled: the canceled job. Deleted: 404."""
    job = submit(queue_only).json()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(queue_only.get, job["links"]["self"], params={"wait": 30})
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        ended_at = time.monotonic()
        if end == "cancel":
            queue_only.post(job["links"]["cancel"])
        else:
            queue_only.delete(job["links"]["self"])
        answer = waiting.result(timeout=30)
    assert time.monotonic() - ended_at < 20  # long before the poll's own time is over
    assert answer.json()["status"] == ("canceled" if end == "cancel" else 404)


@pytest.mark.parametrize(
    ("sent", "applied"),
    [
        ({"prefer": "wait=1"}, "wait=1"),
        ({"prefer": "respond-async, Wait = 1; foo=bar"}, "wait=1"),
        ({"prefer": 'wait="1", wait=30'}, "wait=1"),
        ({"prefer": "wait=soon"}, None),
        ({"prefer": "return=minimal"}, None),
    ],
)
def test_prefer_is_applied_or_left(
    queue_only: httpx.Client, sent: dict[str, str], applied: str | None
) -> None:
    """RFC 7240: what is understood is applied and said; what is not is ignored."""
    job = submit(queue_only).json()
    for answer in (submit(queue_only, sent), queue_only.get(job["links"]["self"], headers=sent)):
        assert answer.headers.get("preference-applied") == applied
        assert (answer.elapsed.total_seconds() >= 1) == (applied is not None)
        assert answer.json()["status"] == "queued"
        assert answer.headers["retry-after"] == "1"


def test_a_preference_over_the_limit_waits_for_the_limit(api: httpx.Client) -> None:
    """`Prefer: wait=600` is applied as 60, and a job that ends in time is a 200 of the POST itself."""
    answer = submit(api, {"prefer": "wait=600"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
    assert answer.headers["location"] == answer.json()["links"]["self"]
    assert answer.json()["status"] == "succeeded"
    assert "retry-after" not in answer.headers


def test_a_post_that_waited_in_vain_is_a_202(queue_only: httpx.Client) -> None:
    """`?wait=1` without a worker: the queued job, after one second."""
    answer = submit(queue_only, wait=1)
    assert answer.status_code == 202
    assert 1 <= answer.elapsed.total_seconds() < 20


@pytest.mark.parametrize("wait", ["-1", "61", "long"])
def test_a_wait_outside_its_range_is_named(api: httpx.Client, wait: str) -> None:
    """422, as for every parameter."""
    answer = api.get("/jobs/0123", params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "wait"


def test_an_unchanged_job_is_a_304(queue_only: httpx.Client, alone: Alone) -> None:
    """The ETag stays while the job stays, and changes with it."""
    job = submit(queue_only).json()
    path = job["links"]["self"]
    tag = queue_only.get(path).headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    same = queue_only.get(path, headers={"if-none-match": f'"other", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert queue_only.get(path, headers={"if-none-match": '"other"'}).status_code == 200
    start(alone.store, job["id"])
    changed = queue_only.get(path, headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_events_tell_each_change_until_the_end(queue_only: httpx.Client, alone: Alone) -> None:
    """Queued, moved up, started, progress, succeeded; then the stream ends, and a reconnect is a 204."""
    first, job = submit(queue_only).json(), submit(queue_only).json()
    with queue_only.stream("GET", job["links"]["events"]) as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        stream = Stream(answer)
        assert stream.next_job()["queue"]["position"] == 2
        queue_only.post(first["links"]["cancel"])
        assert stream.next_job()["queue"]["position"] == 1
        request = start(alone.store, job["id"])
        assert stream.next_job()["started_at"]
        progress = Progress(fraction=0.5, face=1, faces=1, step=1, steps=2)
        alone.store.report(job["id"], progress)
        assert stream.next_job()["progress"] == progress.model_dump()
        finish(alone.store, request)
        last = stream.next_part()
        assert json.loads(last["data"]) == queue_only.get(job["links"]["self"]).json()
        assert json.loads(last["data"])["status"] == "succeeded"
        assert stream.next_part() == {}
    again = queue_only.get(job["links"]["events"], headers={"last-event-id": last["id"]})
    assert again.status_code == 204
    other = queue_only.get(job["links"]["events"], headers={"last-event-id": "older"})
    assert other.text.count("event: job") == 1


def test_events_of_a_real_job(api: httpx.Client) -> None:
    """A worker's start and progress come through, and the end is the last event."""
    form = {"steps": "300", "faces": "aligned"}
    job = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=form).json()
    seen = []
    with api.stream("GET", job["links"]["events"]) as answer:
        stream = Stream(answer)
        while part := stream.next_part():
            seen.append(json.loads(part["data"]))
    statuses = [event["status"] for event in seen]
    assert "running" in statuses
    assert statuses == sorted(statuses, key=["queued", "running", "succeeded"].index)
    assert seen[-1] == wait_for_end(api, job)


def test_events_of_a_deleted_job_end(queue_only: httpx.Client) -> None:
    """The stream says so and ends; there is none for an unknown job."""
    job = submit(queue_only).json()
    with queue_only.stream("GET", job["links"]["events"]) as answer:
        stream = Stream(answer)
        stream.next_job()
        queue_only.delete(job["links"]["self"])
        assert stream.next_part()["event"] == "deleted"
        assert stream.next_part() == {}
    gone = queue_only.get(job["links"]["events"])
    assert (gone.status_code, gone.json()["code"]) == (404, "job_not_found")


@pytest.fixture(scope="module")
def hasty() -> Iterator[Alone]:
    """Return a service without a worker whose event streams beat every second."""
    with serve_alone(heartbeat_seconds=1) as running:
        yield running


def test_a_stream_without_a_change_beats(hasty: Alone) -> None:
    """A comment goes out each interval, so that no gateway takes the stream for dead."""
    with httpx.Client(base_url=hasty.url, timeout=10) as api:
        job = submit(api).json()
        with api.stream("GET", job["links"]["events"]) as answer:
            stream = Stream(answer)
            stream.next_job()
            begun = time.monotonic()
            assert stream.next_part() == {"": "waiting"}
            assert stream.next_part() == {"": "waiting"}
            assert time.monotonic() - begun > 1.5


def test_a_stream_hears_of_a_record_that_is_gone_without_a_word(hasty: Alone) -> None:
    """Expiry publishes nothing; the next heartbeat finds out."""
    with httpx.Client(base_url=hasty.url, timeout=10) as api:
        job = submit(api).json()
        with api.stream("GET", job["links"]["events"]) as answer:
            stream = Stream(answer)
            stream.next_job()
            hasty.redis.delete(f"face-anon:job:{job['id']}")
            assert stream.next_part() == {"": "waiting"}
            assert stream.next_part()["event"] == "deleted"


def test_hundreds_wait_and_nobody_is_slowed(queue_only: httpx.Client, alone: Alone) -> None:
    """300 streams and 300 long polls share one Redis connection; a poll stays quick; all hear the end."""
    job = submit(queue_only).json()

    async def wait_by_hundreds() -> None:
        async with httpx.AsyncClient(base_url=alone.url, timeout=60, limits=httpx.Limits()) as api:

            async def poll() -> str:
                status: str = (await api.get(job["links"]["self"], params={"wait": 60})).json()["status"]
                return status

            async def follow(opened: asyncio.Semaphore) -> str:
                event = ""
                async with api.stream("GET", job["links"]["events"]) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            event = json.loads(line.removeprefix("data: "))["status"]
                            opened.release()
                return event

            opened = asyncio.Semaphore(0)
            waiting = [asyncio.create_task(follow(opened)) for _ in range(300)]
            for _ in waiting:
                await opened.acquire()
            waiting += [asyncio.create_task(poll()) for _ in range(300)]
            for _ in range(30):
                assert (await api.get(job["links"]["self"])).status_code == 200
            assert len(alone.redis.client_list(_type="pubsub")) == 1
            await asyncio.to_thread(lambda: finish(alone.store, start(alone.store, job["id"])))
            assert set(await asyncio.gather(*waiting)) == {"succeeded"}

    asyncio.run(wait_by_hundreds())


def test_a_caller_who_leaves_is_forgotten(queue_only: httpx.Client, alone: Alone) -> None:
    """A stream whose client has gone watches no more."""
    job = submit(queue_only).json()
    path = alone.redis.connection_pool.connection_kwargs["path"]
    changes = Changes(f"unix://{path}")
    config = uvicorn.Config(create_app(alone.store, changes, Settings()), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.stream("GET", f"http://127.0.0.1:{port}{job['links']['events']}") as answer:
            stream = Stream(answer)
            stream.next_job()
            assert changes.watchers == 2  # the job, and the queue before it
        assert eventually(lambda: changes.watchers == 0)
    finally:
        server.should_exit = True
        thread.join()


def test_the_service_stops_while_callers_wait() -> None:
    """SIGTERM: long polls get the job as it stands, streams end, and the process is gone soon."""
    with serve_alone() as running, httpx.Client(base_url=running.url, timeout=30) as api:
        job = submit(api).json()
        with ThreadPoolExecutor() as threads, api.stream("GET", job["links"]["events"]) as answer:
            stream = Stream(answer)
            stream.next_job()
            waiting = threads.submit(api.get, job["links"]["self"], params={"wait": 60})
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            running.process.send_signal(signal.SIGTERM)
            assert waiting.result(timeout=4).json()["status"] == "queued"
            assert stream.next_part() == {}
        running.process.wait(4)


def test_changes_are_heard_again_after_redis_was_away() -> None:
    """The listener's connection is cut: who waits is woken to look, and later changes are heard."""
    with serve_alone() as running, httpx.Client(base_url=running.url, timeout=30) as api:
        job = submit(api).json()
        running.redis.client_kill_filter(_type="pubsub")
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(api.get, job["links"]["self"], params={"wait": 30})
            assert eventually(lambda: bool(running.redis.client_list(_type="pubsub")))
            finish(running.store, start(running.store, job["id"]))
            assert waiting.result(timeout=5).json()["status"] == "succeeded"


def test_who_stops_watching_is_forgotten() -> None:
    """Nothing is kept of a watcher whose block ended, however it ended."""

    async def watch() -> None:
        changes = Changes("redis://127.0.0.1:1")
        with changes.watch("a", "b"), changes.watch("a"):
            assert changes.watchers == 3
        assert changes.watchers == 0
        with pytest.raises(asyncio.CancelledError), changes.watch("a"):
            raise asyncio.CancelledError
        assert changes.watchers == 0

    asyncio.run(watch())
