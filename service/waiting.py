"""Waiting for jobs without a thread each: the `wait` of a request (RFC 7240), the end of a job, and its
changes as server-sent events. `service.app` and `service.job_endpoints` use it; `jobs.changes` wakes it.
"""

import asyncio
import contextlib
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.sse import format_sse_event
from redis.exceptions import RedisError

from jobs.changes import Changes
from jobs.contract import Status
from jobs.store import QUEUE_TOPIC, JobView
from service.schemas import header, never_null

MAX_WAIT_SECONDS = 60
WAIT_PREFERENCE = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)

WaitQuery = Annotated[
    int | None,
    Query(
        ge=0,
        le=MAX_WAIT_SECONDS,
        json_schema_extra=never_null,
        description="Seconds to wait for the end of the job. Beats `Prefer`.",
    ),
]
PREFER_HEADER = header(
    "Prefer",
    f"`wait=N` (RFC 7240): wait up to N seconds, at most {MAX_WAIT_SECONDS}, for the end of the job. "
    "`Preference-Applied` says what was applied.",
)


@dataclass(frozen=True)
class Wait:
    """How long a request wants to wait for the end of a job, and the header that tells it was heard."""

    seconds: int
    headers: dict[str, str]


def requested_wait(request: Request, wait: int | None) -> Wait:
    """Return the wait of a request: of its query, `wait`, or else of its `Prefer`."""
    if wait is not None:
        return Wait(wait, {})
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        if match := WAIT_PREFERENCE.fullmatch(preference):  # the first one counts, RFC 7240, section 2
            seconds = min(int(match[1]), MAX_WAIT_SECONDS)
            return Wait(seconds, {"Preference-Applied": f"wait={seconds}"})
    return Wait(0, {})


def let_go_at_exit(changes: Changes) -> None:
    """Let everybody who waits go at SIGTERM and SIGINT: the server, which hears them too, waits for them."""
    if threading.current_thread() is not threading.main_thread():
        return  # nor does the server hear signals
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _first(changes.end, signal.getsignal(number)))


def _first(end: Callable[[], None], stop: Any) -> Callable[[int, FrameType | None], None]:  # noqa: ANN401
    def handle(number: int, frame: FrameType | None) -> None:
        end()
        if callable(stop):
            stop(number, frame)

    return handle


async def job_at_end(
    read: Callable[[], Awaitable[JobView]], changes: Changes, job_id: str, seconds: int
) -> JobView:
    """Return the job as soon as it has ended, or as it stands after `seconds`."""
    view = await read()
    if not seconds or view.job.status.final:
        return view
    with changes.watch(job_id) as changed, contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not view.job.status.final and not changes.ended:
                changed.clear()
                view = await read()
                if not view.job.status.final:
                    await changed.wait()
    return view if view.job.status.final else await read()


@dataclass(frozen=True)
class Event:
    """A job as its callers see it, to be sent as an event."""

    id: str
    body: str
    status: Status


async def job_events(
    read: Callable[[], Awaitable[Event | None]], changes: Changes, job_id: str, heartbeat_seconds: float
) -> AsyncIterator[bytes]:
    """Yield the job at each change, until it has ended or is gone, as `text/event-stream`.

    A comment goes out every `heartbeat_seconds` while nothing changes. The job is then read again too: one
    that expires, or whose workers all died, tells nobody.
    """
    sent: str | None = None
    with changes.watch(job_id, QUEUE_TOPIC) as changed:
        while not changes.ended:
            changed.clear()
            try:
                event = await read()
            except RedisError:
                return  # callers connect again, and are then told that the store does not answer
            if event is None:
                yield format_sse_event(event="deleted", data_str="null")
                return
            if event.body != sent:
                sent = event.body
                yield format_sse_event(event="job", data_str=event.body, id=event.id)
            if event.status.final:
                return
            try:
                async with asyncio.timeout(heartbeat_seconds):
                    await changed.wait()
            except TimeoutError:
                yield format_sse_event(comment="waiting")
