"""The HTTP endpoints that make jobs: from an upload and its fields to a queued job, or to its end.

`service.app` holds them; `service.uploads` checks pictures, `jobs.store` queues the job, and
`service.job_endpoints` has what comes after.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from jobs.changes import Changes
from jobs.contract import Faces, Idempotency, JobRequest, Kind, Limits, Parameters, PictureFormat, Sampler
from jobs.limits import QueueFullError, TooManyJobsError
from jobs.store import JobRecord, JobStore
from service.access import Access, Owner
from service.answers import JobAnswer
from service.idempotency import KeyHeader, check_same, idempotency_of
from service.job_endpoints import POLL_SECONDS, WAIT_HEADERS, describe_job, known_job
from service.problems import describe, retry_later
from service.settings import Settings
from service.uploads import READ_MEDIA_TYPES, check_upload
from service.waiting import Wait, job_at_end, requested_wait

MAX_SEED = 2**63 - 1

# What may be left out is not in the schema as null: no form, query or header can hold one.
Picture = Annotated[UploadFile, File()]
Degree = Annotated[float, Form(ge=0, le=2, allow_inf_nan=False, description="Degree of anonymization.")]
Seed = Annotated[
    Annotated[int, Field(ge=0, le=MAX_SEED)] | SkipJsonSchema[None],
    Form(description="Drawn at random when absent."),
]
Steps = Annotated[int, Form(ge=1, le=1000, description="Denoising steps.")]
GuidanceScale = Annotated[
    float, Form(ge=0, le=20, allow_inf_nan=False, description="Classifier-free guidance; 1 or less is off.")
]
SamplerField = Annotated[Sampler, Form(description="How the noise is removed.")]
FacesField = Annotated[Faces, Form(description="Which faces are replaced.")]
FormatField = Annotated[
    PictureFormat | SkipJsonSchema[None], Form(description="Default: as sent where we write it, else PNG.")
]
Reference = Annotated[
    Annotated[str, Field(max_length=200)] | SkipJsonSchema[None],
    Form(description="A string of the caller's, echoed."),
]


@dataclass(frozen=True)
class Call:
    """What every submission has beside its fields."""

    request: Request
    wait: Wait
    owner: str | None
    idempotency_key: str | None


def _call(
    request: Request,
    wait: Annotated[Wait, Depends(requested_wait)],
    owner: Owner,
    idempotency_key: KeyHeader = None,
) -> Call:
    return Call(request, wait, owner, idempotency_key)


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
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
}


def sent_as_pictures(*fields: str) -> dict[str, Any]:
    """Return the part of an endpoint's OpenAPI that says which fields are pictures, of which kinds."""
    encoding = {field: {"contentType": READ_MEDIA_TYPES} for field in fields}
    return {"requestBody": {"content": {"multipart/form-data": {"encoding": encoding}}}}


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
        kind: Kind,
        pictures: dict[str, bytes],
        parameters: Parameters,
        reference: str | None,
        call: Call,
        idempotency: Idempotency | None,
    ) -> str:
        made = JobRequest(
            id=uuid4().hex,
            kind=kind,
            parameters=parameters,
            reference=reference,
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
        call: Call,
        kind: Kind,
        pictures: dict[str, bytes],
        parameters: Parameters,
        *,
        seed_sent: bool,
        reference: str | None,
    ) -> JSONResponse:
        sent = parameters.model_dump_json(exclude=None if seed_sent else {"seed"})
        idempotency = idempotency_of(
            call.idempotency_key, call.owner, f"{kind} {sent} {reference!r}", pictures
        )
        job_id = await run_in_threadpool(enqueue, kind, pictures, parameters, reference, call, idempotency)
        call.request.state.job_id = job_id  # for the log

        async def read() -> JobRecord:
            return await run_in_threadpool(known_job, store, job_id, call.owner)

        job = await job_at_end(read, changes, job_id, call.wait.seconds)
        answer = await run_in_threadpool(describe_job, store, job, call.request)
        headers = {"Location": answer.links.self, **call.wait.headers}
        status = HTTPStatus.OK
        if not job.status.final:
            headers["Retry-After"] = str(POLL_SECONDS)
            status = HTTPStatus.ACCEPTED
        return JSONResponse(answer.model_dump(mode="json"), status, headers)

    @routes.post(
        "/anonymize",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_ANSWERS,
        openapi_extra=sent_as_pictures("image"),
        summary="Replace the faces in a photo",
    )
    async def anonymize(
        call: CallDependency,
        image: Picture,
        d: Degree = 1.25,
        seed: Seed = None,
        steps: Steps = 200,
        guidance_scale: GuidanceScale = 4.0,
        sampler: SamplerField = Sampler.DDPM,
        faces: FacesField = Faces.ALL,
        format: FormatField = None,  # noqa: A002  the API's name
        reference: Reference = None,
    ) -> JSONResponse:
        """Queue a job that replaces every face found in `image` and keeps everything else."""
        upload = await image.read()
        written = await run_in_threadpool(check, "image", upload, format)
        parameters = Parameters(
            d=d,
            seed=_drawn(seed),
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            faces=faces,
            format=written,
        )
        return await accept(
            call,
            Kind.ANONYMIZE,
            {"image": upload},
            parameters,
            seed_sent=seed is not None,
            reference=reference,
        )

    @routes.post(
        "/swap",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_ANSWERS,
        openapi_extra=sent_as_pictures("source", "driving"),
        summary="Give a face another identity",
    )
    async def swap(
        call: CallDependency,
        source: Picture,
        driving: Picture,
        seed: Seed = None,
        steps: Steps = 200,
        guidance_scale: GuidanceScale = 4.0,
        sampler: SamplerField = Sampler.DDPM,
        faces: FacesField = Faces.ALL,
        format: FormatField = None,  # noqa: A002  the API's name
        reference: Reference = None,
    ) -> JSONResponse:
        """Queue a job that gives the faces in `driving` the identity of the largest face in `source`."""
        source_upload, driving_upload = await source.read(), await driving.read()
        await run_in_threadpool(check, "source", source_upload, None)
        written = await run_in_threadpool(check, "driving", driving_upload, format)
        parameters = Parameters(
            seed=_drawn(seed),
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            faces=faces,
            format=written,
        )
        pictures = {"source": source_upload, "driving": driving_upload}
        return await accept(
            call, Kind.SWAP, pictures, parameters, seed_sent=seed is not None, reference=reference
        )

    return routes


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed
