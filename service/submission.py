"""The HTTP endpoints that make jobs: from an upload and its fields to a queued job, or to its end.

`service.app` holds them; `service.uploads` checks pictures, `jobs.store` queues the job, and
`service.job_endpoints` has what comes after.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, File, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from jobs.changes import Changes
from jobs.contract import Idempotency, JobRequest, Kind, Limits, PictureFormat
from jobs.limits import QueueFullError, TooManyJobsError
from jobs.store import JobStore, JobView
from service.access import Access, owner_of
from service.answers import JobAnswer
from service.fields import Degree, Fields, SentFields
from service.idempotency import KeyHeader, check_same, idempotency_of
from service.job_endpoints import POLL_SECONDS, WAIT_HEADERS, describe_job, known_job
from service.problems import describe, retry_later
from service.settings import Settings
from service.uploads import READ_MEDIA_TYPES, check_upload
from service.waiting import PREFER_HEADER, Wait, WaitQuery, job_at_end, requested_wait

Picture = Annotated[UploadFile, File()]


@dataclass(frozen=True)
class Call:
    """What every submission has beside its fields."""

    request: Request
    wait: Wait
    owner: str | None
    idempotency_key: str | None


async def _call(request: Request, wait: WaitQuery = None, idempotency_key: KeyHeader = None) -> Call:
    return Call(request, requested_wait(request, wait), owner_of(request), idempotency_key)


CallDependency = Annotated[Call, Depends(_call)]

SUBMIT_HEADERS = {"Location": {"description": "The job.", "schema": {"type": "string"}}, **WAIT_HEADERS}
SUBMIT_ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"description": "The job is queued.", "headers": SUBMIT_HEADERS},
    200: {
        "description": "The finished job: it ended while the request waited, or an earlier request with the "
        "same `Idempotency-Key` had made it.",
        "model": JobAnswer,
        "headers": SUBMIT_HEADERS,
    },
    **describe(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}


def described_submission(*fields: str) -> dict[str, Any]:
    """Return what FastAPI does not know of an endpoint: which fields are pictures, and of which kinds."""
    encoding = {field: {"contentType": READ_MEDIA_TYPES} for field in fields}
    return {
        "requestBody": {"content": {"multipart/form-data": {"encoding": encoding}}},
        "parameters": [PREFER_HEADER],
    }


async def _take(file: UploadFile) -> bytes:
    """Return the bytes of a file and let go of it."""
    content = await file.read()
    await file.close()
    return content


def submission_routes(store: JobStore, changes: Changes, access: Access, settings: Settings) -> APIRouter:
    """Return the endpoints that put jobs into `store`."""
    routes = access.router()
    limits = Limits(
        max_pixels=settings.max_pixels,
        max_faces=settings.max_faces,
        start_seconds=settings.start_seconds,
        run_seconds=settings.run_seconds,
        max_deaths=settings.max_deaths,
        result_seconds=settings.result_seconds,
        record_seconds=max(settings.record_seconds, settings.result_seconds),
    )

    def check(field: str, upload: bytes, asked: PictureFormat | None) -> PictureFormat:
        return check_upload(
            field, upload, asked, max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels
        )

    def enqueue(
        call: Call,
        kind: Kind,
        fields: Fields,
        pictures: dict[str, bytes],
        written: PictureFormat,
        idempotency: Idempotency | None,
    ) -> str:
        made = JobRequest(
            id=uuid4().hex,
            kind=kind,
            parameters=fields.parameters(kind, store.defaults(), written),
            reference=fields.reference,
            owner=call.owner,
            request_id=call.request.state.request_id,
            created_at=datetime.now(UTC),
            limits=limits,
            idempotency=idempotency,
        )
        try:
            request = store.submit(
                made,
                pictures,
                waiting_seconds=settings.waiting_seconds,
                max_queued=settings.max_queued_jobs,
                max_owned=settings.jobs_per_key,
            )
        except QueueFullError as error:
            raise retry_later(HTTPStatus.TOO_MANY_REQUESTS, "queue_full", str(error)) from error
        except TooManyJobsError as error:
            raise retry_later(HTTPStatus.TOO_MANY_REQUESTS, "too_many_jobs", str(error)) from error
        check_same(request, idempotency)
        return request.id

    async def accept(
        call: Call, kind: Kind, fields: Fields, pictures: dict[str, bytes], written: PictureFormat
    ) -> JSONResponse:
        # as sent: a checkpoint's defaults may be others when the request is sent again
        sent = f"{kind} {fields.model_dump_json()}"
        idempotency = idempotency_of(call.idempotency_key, call.owner, sent, pictures)
        job_id = await run_in_threadpool(enqueue, call, kind, fields, pictures, written, idempotency)
        call.request.state.job_id = job_id  # for the log
        pictures.clear()  # whoever waits for the end does not hold them
        call.request.state.let_body_go()

        async def read() -> JobView:
            return known_job(await changes.view(job_id), call.owner)

        view = await job_at_end(read, changes, job_id, call.wait.seconds)
        answer = describe_job(view, call.request)
        headers = {"Location": answer.links.self, **call.wait.headers}
        status = HTTPStatus.OK
        if not view.job.status.final:
            headers["Retry-After"] = str(POLL_SECONDS)
            status = HTTPStatus.ACCEPTED
        return JSONResponse(answer.model_dump(mode="json"), status, headers)

    @routes.post(
        "/anonymize",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_ANSWERS,
        openapi_extra=described_submission("image"),
        summary="Replace the faces in a photo",
    )
    async def anonymize(
        call: CallDependency, fields: SentFields, image: Picture, d: Degree = None
    ) -> JSONResponse:
        """Queue a job that replaces every face found in `image` and keeps everything else."""
        pictures = {"image": await _take(image)}
        written = await run_in_threadpool(check, "image", pictures["image"], fields.format)
        fields = fields.model_copy(update={"d": d})
        return await accept(call, Kind.ANONYMIZE, fields, pictures, written)

    @routes.post(
        "/swap",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_ANSWERS,
        openapi_extra=described_submission("source", "driving"),
        summary="Give a face another identity",
    )
    async def swap(
        call: CallDependency, fields: SentFields, source: Picture, driving: Picture
    ) -> JSONResponse:
        """Queue a job that gives the faces in `driving` the identity of the largest face in `source`."""
        pictures = {"source": await _take(source), "driving": await _take(driving)}
        await run_in_threadpool(check, "source", pictures["source"], None)
        written = await run_in_threadpool(check, "driving", pictures["driving"], fields.format)
        return await accept(call, Kind.SWAP, fields, pictures, written)

    return routes
