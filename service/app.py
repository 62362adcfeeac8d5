"""The HTTP endpoints that make jobs, from an upload to a queued job, and the app that holds all endpoints.

`service.main` runs it; `service.uploads` checks pictures, `jobs.store` keeps jobs and
`service.job_endpoints` has what comes after a job was accepted.
"""

import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from uuid import uuid4

import pi_heif
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, Field
from starlette.formparsers import MultiPartParser

from jobs.contract import Faces, JobRequest, Kind, Limits, Parameters, PictureFormat, Sampler
from jobs.store import JobStore
from service.answers import JobAnswer
from service.body_limit import BodyLimit
from service.job_endpoints import POLL_SECONDS, describe_job, job_routes, known_job
from service.problems import ProblemError, describe, install, retry_later
from service.settings import Settings
from service.uploads import check_upload

MAX_SEED = 2**63 - 1
ROOM_FOR_FIELDS = 64 * 1024

Picture = Annotated[UploadFile, File()]
Degree = Annotated[float, Form(ge=0, le=2, allow_inf_nan=False, description="Degree of anonymization.")]
Seed = Annotated[int | None, Form(ge=0, le=MAX_SEED, description="Drawn at random when absent.")]
Steps = Annotated[int, Form(ge=1, le=1000, description="Denoising steps.")]
GuidanceScale = Annotated[
    float, Form(ge=0, le=20, allow_inf_nan=False, description="Classifier-free guidance; 1 or less is off.")
]
SamplerField = Annotated[Sampler, Form(description="How the noise is removed.")]
FacesField = Annotated[Faces, Form(description="Which faces are replaced.")]
FormatField = Annotated[
    PictureFormat | None, Form(description="Default: as sent where we write it, else PNG.")
]
Reference = Annotated[str | None, Form(max_length=200, description="A string of the caller's, echoed.")]

SUBMIT_PROBLEMS = describe(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


class Health(BaseModel):
    """The process lives, or is ready for jobs."""

    status: str = Field(examples=["ok"])


def create_app(store: JobStore, settings: Settings) -> FastAPI:
    """Return the service over `store`, an ASGI app."""
    app = FastAPI(
        title="face-anon",
        version="0.1.0",
        summary="Anonymizes or swaps the faces in photos.",
        responses=describe(HTTPStatus.INTERNAL_SERVER_ERROR),
    )
    body_limit = 2 * settings.max_upload_bytes + ROOM_FOR_FIELDS
    app.add_middleware(BodyLimit, limit=body_limit)
    MultiPartParser.spool_max_size = body_limit  # an upload stays in memory: it never touches the disk
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked from the header
    pi_heif.register_heif_opener()
    install(app)
    limits = Limits(
        max_pixels=settings.max_pixels, max_faces=settings.max_faces, keep_seconds=settings.result_seconds
    )

    def check(field: str, upload: bytes) -> PictureFormat:
        return check_upload(
            field, upload, max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels
        )

    def accept(
        request: Request,
        kind: Kind,
        pictures: dict[str, bytes],
        parameters: Parameters,
        reference: str | None,
    ) -> JSONResponse:
        if store.queued() >= settings.max_queued_jobs:
            detail = f"{settings.max_queued_jobs} jobs are waiting, the limit; try again later"
            raise retry_later(HTTPStatus.TOO_MANY_REQUESTS, "queue_full", detail)
        job_request = JobRequest(
            id=uuid4().hex,
            kind=kind,
            parameters=parameters,
            reference=reference,
            created_at=datetime.now(UTC),
            limits=limits,
        )
        store.submit(
            job_request,
            pictures,
            waiting_seconds=settings.waiting_seconds,
            run_seconds=settings.run_seconds,
        )
        answer = describe_job(store, known_job(store, job_request.id), request)
        return JSONResponse(
            answer.model_dump(mode="json"),
            HTTPStatus.ACCEPTED,
            {"Location": answer.links.self, "Retry-After": str(POLL_SECONDS)},
        )

    @app.post(
        "/anonymize",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_PROBLEMS,
        summary="Replace the faces in a photo",
    )
    def anonymize(
        request: Request,
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
        upload = image.file.read()
        as_sent = check("image", upload)
        parameters = Parameters(
            d=d,
            seed=_drawn(seed),
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            faces=faces,
            format=format or as_sent,
        )
        return accept(request, Kind.ANONYMIZE, {"image": upload}, parameters, reference)

    @app.post(
        "/swap",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobAnswer,
        responses=SUBMIT_PROBLEMS,
        summary="Give a face another identity",
    )
    def swap(
        request: Request,
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
        source_upload, driving_upload = source.file.read(), driving.file.read()
        check("source", source_upload)
        as_sent = check("driving", driving_upload)
        parameters = Parameters(
            seed=_drawn(seed),
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            faces=faces,
            format=format or as_sent,
        )
        pictures = {"source": source_upload, "driving": driving_upload}
        return accept(request, Kind.SWAP, pictures, parameters, reference)

    app.include_router(job_routes(store))

    @app.get("/healthz", summary="The process lives")
    def healthz() -> Health:
        """Answer as long as the process can."""
        return Health(status="ok")

    @app.get("/readyz", responses=describe(HTTPStatus.SERVICE_UNAVAILABLE), summary="Ready for jobs")
    def readyz() -> Health:
        """Answer 200 where Redis answers and a worker with a loaded model is there."""
        if not store.models():
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_ready",
                "no worker with a loaded model is there",
                headers={"Retry-After": str(POLL_SECONDS)},
                missing=["worker"],
            )
        return Health(status="ready")

    return app


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed
