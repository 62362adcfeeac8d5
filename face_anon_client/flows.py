"""What a client does, step by step, without doing it: each function is a generator that yields the next step
and is sent what came of it. `sync_client` and `async_client` do the steps, each in its own way; a step that
finds no service raises `httpx.RequestError` inside the generator.
"""

import itertools
import json
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from face_anon_client.calls import BUSY, Call, check_header, json_of, problem_of
from face_anon_client.errors import (
    FaceAnonError,
    JobCanceledError,
    JobFailedError,
    JobNotFoundError,
    ServiceUnreachableError,
    WaitTimeoutError,
)
from face_anon_client.job_state import JobState, Status, read_job
from face_anon_client.retries import Retries

LONG_POLL_SECONDS = 30
WATCHED_POLL_SECONDS = 1
SILENCE_SECONDS = 20.0
"""The service sends a comment every 15 s: a stream that is silent for longer does not get through."""
MOST_MISSES = 3
LATE_SECONDS = 1.0


@dataclass(frozen=True)
class Send:
    """Send a call; gives the answer, read to its end."""

    call: Call


@dataclass(frozen=True)
class Pause:
    """Let time pass; gives nothing."""

    seconds: float


@dataclass(frozen=True)
class OpenStream:
    """Send a call and leave its answer open; gives the answer."""

    call: Call


@dataclass(frozen=True)
class NextLine:
    """Read a line of the open answer; gives it, None at its end."""


@dataclass(frozen=True)
class CloseStream:
    """Close the open answer; gives nothing."""


@dataclass(frozen=True)
class Tell:
    """Tell the caller how the job stands; gives nothing."""

    state: JobState


Step = Send | Pause | OpenStream | NextLine | CloseStream | Tell


def submit(
    target: str,
    form: dict[str, str],
    pictures: dict[str, bytes],
    idempotency_key: str | None,
    retries: Retries,
) -> Generator[Step, Any, JobState]:
    """Make a job, or get the one that the same request with the same key has made."""
    key = idempotency_key or str(uuid4())
    check_header("the idempotency key", key)
    call = Call("POST", target, headers={"Idempotency-Key": key}, form=form, pictures=pictures)
    response = yield from _send(call, retries)
    return read_job(json_of(response))


def look(target: str, retries: Retries) -> Generator[Step, Any, JobState]:
    """Ask how a job stands."""
    response = yield from _send(Call("GET", target), retries)
    return read_job(json_of(response))


def cancel(state: JobState, retries: Retries) -> Generator[Step, Any, JobState]:
    """Cancel a job; one that has ended stays as it is."""
    response = yield from _send(Call("POST", state.links.cancel), retries)
    return read_job(json_of(response))


def delete(state: JobState, retries: Retries) -> Generator[Step, Any, None]:
    """Erase a job; that it is gone already, perhaps by a try whose answer was lost, is as good."""
    try:
        yield from _send(Call("DELETE", state.links.self), retries)
    except JobNotFoundError:
        return


def picture(state: JobState, retries: Retries) -> Generator[Step, Any, bytes]:
    """Fetch the picture of a job that has succeeded."""
    response = yield from _send(Call("GET", state.links.result, headers={"Accept": "*/*"}), retries)
    return response.content


def wait(
    state: JobState, timeout: float | None, retries: Retries, *, watched: bool
) -> Generator[Step, Any, None]:
    """Wait for the end of a job and tell how it stands at each change that is seen.

    Every change is seen where the job is `watched`: by server-sent events, or, where they do not get through,
    by asking each second. Otherwise each request waits for the end.

    Raises `WaitTimeoutError` after `timeout` seconds, `JobFailedError` and `JobCanceledError`.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    misses = 0 if watched else MOST_MISSES
    yield Tell(state)
    while not state.status.final:
        if misses < MOST_MISSES and deadline - time.monotonic() > SILENCE_SECONDS:
            latest = yield from _follow(state, deadline)
            misses = misses + 1 if latest is None else 0
            state = latest or state
            if state.status.final:
                break
        try:
            latest = yield from _poll(state, deadline, retries, watched=watched)
        except FaceAnonError as error:
            if error.retryable and time.monotonic() >= deadline:
                raise WaitTimeoutError(state, timeout or 0) from error
            raise
        if latest != state:
            state = latest
            yield Tell(state)
        if not state.status.final and time.monotonic() >= deadline:
            raise WaitTimeoutError(state, timeout or 0)
    if state.status is Status.FAILED:
        raise JobFailedError(state)
    if state.status is Status.CANCELED:
        raise JobCanceledError(state)


def _poll(
    state: JobState, deadline: float, retries: Retries, *, watched: bool
) -> Generator[Step, Any, JobState]:
    remaining = max(0.0, deadline - time.monotonic())
    seconds = WATCHED_POLL_SECONDS if watched else LONG_POLL_SECONDS
    if remaining < 1:
        yield Pause(remaining)
    call = Call(
        "GET",
        state.links.self,
        query={"wait": str(min(seconds, int(min(remaining, seconds))))},
        read_seconds=min(seconds + LONG_POLL_SECONDS, remaining + LATE_SECONDS),
    )
    response = yield from _send(call, retries, deadline)
    return read_job(json_of(response))


def _follow(state: JobState, deadline: float) -> Generator[Step, Any, JobState | None]:
    """Follow the events of a job to its end, or to where they break off; gives None where none came."""
    call = Call(
        "GET", state.links.events, headers={"Accept": "text/event-stream"}, read_seconds=SILENCE_SECONDS
    )
    latest: JobState | None = None
    try:
        response = yield OpenStream(call)
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        name, parts = "", []
        while streams and (line := (yield NextLine())) is not None:
            field, _, value = line.partition(":")
            if field == "event":
                name = value.strip()
            elif field == "data":
                parts.append(value.removeprefix(" "))
            elif not line and parts:  # an empty line ends an event
                if name == "job":
                    seen, latest = latest or state, read_job(json.loads("\n".join(parts)))
                    if latest != seen:
                        yield Tell(latest)
                    if latest.status.final:
                        break
                name, parts = "", []
            if deadline - time.monotonic() < SILENCE_SECONDS:
                break  # the rest of the time is polled, since a silent stream cannot be left on time
    except (httpx.RequestError, json.JSONDecodeError):
        pass  # the service restarts, or a gateway has cut it off: the caller asks, and follows again
    yield CloseStream()
    return latest


def _send(call: Call, retries: Retries, deadline: float = math.inf) -> Generator[Step, Any, httpx.Response]:
    """Send a call until it is answered; raises the last error where `retries` or `deadline` are over."""
    for attempt in itertools.count(1):
        failure: FaceAnonError
        retry_after = None
        try:
            response: httpx.Response = yield Send(call)
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            failure = ServiceUnreachableError(f"no answer from the service: {reason}")
            failure.__cause__ = error
        else:
            if response.is_success:
                return response
            failure = problem = problem_of(response)
            if response.status_code not in BUSY:
                raise failure
            retry_after = problem.retry_after
        pause = retries.pause(attempt, retry_after)
        if pause is None:
            raise failure
        yield Pause(max(0.0, min(pause, deadline - time.monotonic())))
        if time.monotonic() >= deadline:
            raise failure
    raise AssertionError  # itertools.count has no end
