"""The HTTP endpoints under `/jobs/`: how a job stands, its picture, and its end before its time.

`service.submission` makes the jobs; `jobs.store` keeps them and `service.answers` describes them.
"""

import hashlib
import re
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from jobs.changes import Changes
from jobs.contract import PictureFormat, Status
from jobs.store import JobStore, JobView
from service.access import Access, owner_of
from service.answers import JobAnswer, job_answer
from service.problems import ProblemError, describe
from service.schemas import header
from service.waiting import PREFER_HEADER, Event, WaitQuery, job_at_end, job_events, requested_wait

POLL_SECONDS = 1

UNKNOWN = describe(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
TEXT_HEADER = {"schema": {"type": "string"}}
WAIT_HEADERS = {
    "Retry-After": {
        "description": "Seconds to the next poll, while the job is not finished.",
        "schema": {"type": "integer"},
    },
    "Preference-Applied": {"description": "The `wait` of `Prefer` that was applied.", **TEXT_HEADER},
}
JOB_HEADERS = {"ETag": {"description": "Changes with the job.", **TEXT_HEADER}, **WAIT_HEADERS}
NOT_MODIFIED: dict[str, Any] = {
    "description": "The job is as the caller has seen it (`If-None-Match`).",
    "headers": JOB_HEADERS,
}
SEEN_HEADER = header("If-None-Match", "An `ETag` the caller has seen.")
LAST_EVENT_HEADER = header("Last-Event-ID", "Sent by browsers when they reconnect.")
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("event", "id", "data")},
}
EVENTS = (
    "`event: job` with the job as `data` at once and at each change, and for the last time at its end; "
    "`event: deleted` where it is gone; comments while nothing changes. Then the stream ends."
)


def known_job(view: JobView | None, owner: str | None) -> JobView:
    """Return the job that was read; raises the `404` where there is none, or it is another caller's."""
    if view is None or view.job.request.owner != owner:
        raise job_not_found()
    return view


def job_not_found() -> ProblemError:
    """Return the problem of a job that there is not, or not any more."""
    return ProblemError(HTTPStatus.NOT_FOUND, "job_not_found", "there is no such job, or no more")


def describe_job(view: JobView, request: Request) -> JobAnswer:
    """Describe a job with links for this caller."""
    return job_answer(view, request.scope.get("root_path", ""))


def entity_tag(body: str) -> str:
    """Return the ETag of an answer: it changes with every byte."""
    return f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'


def job_routes(store: JobStore, changes: Changes, access: Access, *, heartbeat_seconds: float) -> APIRouter:
    """Return the endpoints over the jobs in `store`, each caller's for itself."""
    routes = access.router(prefix="/jobs")

    @routes.get(
        "/{job_id}",
        response_model=JobAnswer,
        responses={200: {"headers": JOB_HEADERS}, 304: NOT_MODIFIED, **UNKNOWN},
        openapi_extra={"parameters": [PREFER_HEADER, SEEN_HEADER]},
        summary="The job as it stands, or at its end",
    )
    async def get_job(request: Request, job_id: str, wait: WaitQuery = None) -> Response:
        """Return the job; `Retry-After` says when to ask again while it is not finished."""
        asked = requested_wait(request, wait)
        view = await job_at_end(partial(read, job_id, owner_of(request)), changes, job_id, asked.seconds)
        body = describe_job(view, request).model_dump_json()
        tag = entity_tag(body)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", **asked.headers}
        if not view.job.status.final:
            headers["Retry-After"] = str(POLL_SECONDS)
        if tag in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def read(job_id: str, owner: str | None) -> JobView:
        return known_job(await changes.view(job_id), owner)

    @routes.get(
        "/{job_id}/events",
        response_class=StreamingResponse,
        responses={
            200: {"description": EVENTS, "content": {"text/event-stream": {"schema": EVENT}}},
            204: {"description": "The caller has seen the end of the job, says its `Last-Event-ID`."},
            **UNKNOWN,
        },
        openapi_extra={"parameters": [LAST_EVENT_HEADER]},
        summary="The job at each change, as server-sent events",
    )
    async def get_events(request: Request, job_id: str) -> Response:
        """Stream the job at each change, the last time at its end."""
        owner = owner_of(request)

        async def event() -> Event | None:
            view = await changes.view(job_id)
            if view is None or view.job.request.owner != owner:
                return None
            body = describe_job(view, request).model_dump_json()
            return Event(entity_tag(body), body, view.job.status)

        now = await event()
        if now is None:
            raise job_not_found()
        if now.status.final and request.headers.get("last-event-id") == now.id:
            return Response(status_code=HTTPStatus.NO_CONTENT)  # tells a browser not to reconnect
        stream = job_events(event, changes, job_id, heartbeat_seconds)
        # X-Accel-Buffering: nginx hands on each event as it comes
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @routes.get(
        "/{job_id}/result",
        response_class=Response,
        responses={
            200: {"content": {f.media_type: {} for f in PictureFormat}, "description": "The picture."},
            **describe(HTTPStatus.CONFLICT, HTTPStatus.GONE),
            **UNKNOWN,
        },
        summary="The finished picture",
    )
    def get_result(request: Request, job_id: str) -> Response:
        """Return the bytes of the picture, never stored by caches."""
        job = known_job(store.view(job_id), owner_of(request)).job
        if job.status is not Status.SUCCEEDED or job.outcome is None or job.outcome.result is None:
            detail = f"the job is {job.status}: it has no picture"
            raise ProblemError(HTTPStatus.CONFLICT, f"job_{job.status}", detail)
        picture = store.result(job_id)
        if picture is None:
            raise ProblemError(HTTPStatus.GONE, "result_expired", "the picture has expired")
        return Response(
            picture, media_type=job.outcome.result.media_type, headers={"Cache-Control": "no-store"}
        )

    @routes.post(
        "/{job_id}/cancel",
        response_model=JobAnswer,
        responses=UNKNOWN,
        summary="Cancel a queued or a running job",
    )
    def cancel_job(request: Request, job_id: str) -> JobAnswer:
        """End the job as `canceled` and erase its uploads; a worker that runs it stops at its next step.

        A job that has ended is returned as it is.
        """
        owner = owner_of(request)
        known_job(store.view(job_id), owner)
        store.cancel(job_id)
        return describe_job(known_job(store.view(job_id), owner), request)

    @routes.delete(
        "/{job_id}", status_code=HTTPStatus.NO_CONTENT, responses=UNKNOWN, summary="Erase a job now"
    )
    def delete_job(request: Request, job_id: str) -> None:
        """Cancel the job and erase it with its uploads and its picture; from now on it is a `404`."""
        known_job(store.view(job_id), owner_of(request))
        if not store.delete(job_id):
            raise job_not_found()

    return routes
