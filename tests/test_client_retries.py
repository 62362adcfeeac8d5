"""The Python client behind a gateway that makes trouble: nothing is lost, and nothing is done twice."""

import asyncio
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from conftest import FACE_ANON, PHOTO, ROOT, Alone, Running, eventually, serve_alone
from gateway import Busy, Gateway, Trouble, gateway
from test_waiting import finish, start

from face_anon_client import (
    AsyncClient,
    Client,
    JobState,
    Parameters,
    RateLimitedError,
    Retries,
    ServiceUnavailableError,
    ServiceUnreachableError,
    Status,
    WaitTimeoutError,
)
from face_anon_client.retries import seconds_of

QUICK: Parameters = {"steps": 2, "faces": "aligned"}
RETRIES = Retries(attempts=6, first_seconds=0.01)
EVERY_TROUBLE: list[tuple[str, Trouble | Busy]] = [
    ("POST /anonymize", Busy(503, "0")),
    ("POST /anonymize", Trouble.DROP),
    ("POST /anonymize", Busy(429, "1")),
    ("POST /anonymize", Trouble.LOSE),
    ("GET .*/events", Trouble.CUT),
    (r"GET .*\?wait=.*", Busy(503, "0")),
    (r"GET .*\?wait=.*", Trouble.LOSE),
    ("GET .*/events", Busy(502)),
    ("GET .*/events", Trouble.DROP),
    ("GET .*/result", Trouble.CUT),
    ("GET .*/result", Busy(504)),
    ("DELETE .*", Trouble.LOSE),
]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_trouble_is_survived(served: Running, asynchronous: bool) -> None:
    """From submit to delete, each with its troubles: one job, its picture whole, and gone in the end."""

    async def run_async(url: str) -> tuple[JobState, bytes]:
        async with AsyncClient(url, retries=RETRIES) as client:
            job = await client.anonymize(PHOTO, **QUICK)
            await job.wait(on_progress=lambda _: None)
            picture = await job.result()
            await job.delete()
            return job.state, picture

    def run(url: str) -> tuple[JobState, bytes]:
        with Client(url, retries=RETRIES) as client:
            job = client.anonymize(PHOTO, **QUICK).wait(on_progress=lambda _: None)
            picture = job.result()
            job.delete()
            return job.state, picture

    with gateway(served.url) as between:
        between.troubles = list(EVERY_TROUBLE)
        state, picture = asyncio.run(run_async(between.url)) if asynchronous else run(between.url)
        submissions = [heard for heard in between.heard if heard.line == "POST /anonymize"]
        assert not [
            line for line, _ in between.troubles if "POST" in line or "result" in line or "DEL" in line
        ]
    assert state.status is Status.SUCCEEDED
    assert picture.startswith(b"\x89PNG")
    assert picture.endswith(b"IEND\xaeB`\x82")
    assert len(submissions) == 5
    assert len({heard.headers["idempotency-key"] for heard in submissions}) == 1


@pytest.mark.usefixtures("queue_only")
def test_a_lost_answer_makes_no_second_job(alone: Alone) -> None:
    """The service had queued the job when the connection broke: the retry is given that job."""
    with gateway(alone.url) as between, Client(between.url, retries=RETRIES) as client:
        between.troubles = [("POST .*", Trouble.LOSE)] * 2
        job = client.anonymize(PHOTO, **QUICK)
        assert between.lines() == ["POST /anonymize"] * 3
        assert alone.store.queued() == 1
        assert client.job(job.id).state.parameters.seed == job.state.parameters.seed
        again = client.anonymize(PHOTO, **QUICK)
        assert (again.id != job.id, alone.store.queued()) == (
            True,
            2,
        )  # a call of its own is a job of its own
        mine = [client.anonymize(PHOTO, idempotency_key="case 12", **QUICK).id for _ in range(2)]
        assert mine[0] == mine[1]


@pytest.mark.usefixtures("queue_only")
def test_tries_are_bounded(alone: Alone) -> None:
    """The last refusal is raised; a pause longer than the caller's longest is not waited for at all."""
    with gateway(alone.url) as between:
        with Client(between.url, retries=Retries(attempts=3, first_seconds=0.01)) as client:
            between.troubles = [("POST .*", Busy(503, "0"))] * 3
            with pytest.raises(ServiceUnavailableError):
                client.anonymize(PHOTO)
            assert len(between.heard) == 3
            between.troubles = [("POST .*", Trouble.DROP)] * 3
            with pytest.raises(ServiceUnreachableError) as unreachable:
                client.anonymize(PHOTO)
            assert len(between.heard) == 6
            assert unreachable.value.retryable
        between.troubles = [("POST .*", Busy(429, "86400"))]
        with Client(between.url) as client, pytest.raises(RateLimitedError) as limited:
            client.anonymize(PHOTO)
        assert len(between.heard) == 7
    assert limited.value.retry_after == 86400
    assert alone.store.queued() == 0


def test_pauses_grow_and_are_spread() -> None:
    """Twice the last one, up to a quarter more, never less than the service asked for, up to a limit."""
    retries = Retries(attempts=5, first_seconds=1, longest_seconds=3)
    for attempt, seconds in ((1, 1), (2, 2), (3, 3), (4, 3)):
        pauses = {retries.pause(attempt, None) for _ in range(50)}
        assert len(pauses) > 1
        assert all(pause is not None and seconds <= pause <= 1.25 * seconds for pause in pauses)
    asked = [retries.pause(4, 2.5) for _ in range(50)]
    assert all(pause is not None and 2.5 <= pause <= 1.25 * 2.5 for pause in asked)
    assert retries.pause(5, None) is None
    assert retries.pause(1, 4) is None


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds or a date; one that has passed is now, and nonsense is nothing."""
    later = seconds_of(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert later is not None
    assert 60 < later <= 100
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [seconds_of(text) for text in ("7", " 0 ", "soon", "", None)] == [7, 0, None, None, None]


@pytest.mark.usefixtures("queue_only")
def test_a_wait_ends_on_time_while_the_service_is_down(alone: Alone) -> None:
    """Also in the middle of the pauses between tries."""
    with gateway(alone.url) as between, Client(between.url) as client:
        job = client.anonymize(PHOTO, **QUICK)
        between.troubles = [("GET .*", Busy(503, "30"))] * 50
        with pytest.raises(WaitTimeoutError, match="still queued"):
            job.wait(timeout=0.3)
        assert len(between.lines("GET .*")) == 1


def test_a_restart_is_waited_out() -> None:
    """The service stops in mid-wait and comes back: both ways of waiting see the end of the job."""
    told = threading.Event()

    def watch(url: str, job_id: str) -> JobState:
        with Client(url) as client:
            return client.job(job_id).wait(on_progress=lambda _: told.set()).state

    def wait(url: str, job_id: str) -> JobState:
        with Client(url) as client:
            return client.job(job_id).wait().state

    with serve_alone() as running, Client(running.url) as client, ThreadPoolExecutor() as threads:
        job = client.anonymize(PHOTO, **QUICK)
        waits = [threads.submit(way, running.url, job.id) for way in (watch, wait)]
        assert told.wait(30)
        running.process.terminate()
        running.process.wait(30)
        finish(running.store, start(running.store, job.id))
        port, path = running.url.rpartition(":")[2], running.redis.connection_pool.connection_kwargs["path"]
        again = subprocess.Popen(
            [*FACE_ANON, "service", "--port", port, "--redis-url", f"unix://{path}"], cwd=ROOT
        )
        try:
            assert {wait.result(90).status for wait in waits} == {Status.SUCCEEDED}
            assert job.result() == b"picture"
        finally:
            again.terminate()
            assert again.wait(30) in {0, -signal.SIGTERM}


@pytest.mark.usefixtures("queue_only")
def test_where_events_do_not_get_through_it_polls(alone: Alone) -> None:
    """Three streams without an event are enough: from then on each second is asked."""
    seen: list[JobState] = []

    def work(between: Gateway, job_id: str) -> None:
        assert eventually(lambda: len(between.lines(r"GET .*\?wait=1")) >= 4)
        finish(alone.store, start(alone.store, job_id))

    with gateway(alone.url) as between, Client(between.url) as client, ThreadPoolExecutor() as threads:
        between.troubles = [("GET .*/events", Trouble.DROP)] * 50
        job = client.anonymize(PHOTO, **QUICK)
        working = threads.submit(work, between, job.id)
        job.wait(on_progress=seen.append)
        working.result(30)
        assert len(between.lines("GET .*/events")) == 3
    assert [state.status for state in (seen[0], seen[-1])] == [Status.QUEUED, Status.SUCCEEDED]
