"""The service as one ASGI app: its endpoints, its limits on requests, its errors, its health.

`service.main` runs it; `service.submission` makes jobs, `service.job_endpoints` has what comes after.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import pi_heif
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel, Field
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.formparsers import MultiPartParser

from jobs.changes import Changes
from jobs.store import JobStore
from service.body_limit import BodyLimit
from service.job_endpoints import POLL_SECONDS, job_routes
from service.keys import Keys, read_keys
from service.page.routes import install_page
from service.problems import ProblemError, describe, install
from service.settings import Settings
from service.submission import submission_routes

log = logging.getLogger("face_anon.service")

ROOM_FOR_FIELDS = 64 * 1024


class Health(BaseModel):
    """The process lives, or is ready for jobs."""

    status: str = Field(examples=["ok"])


def create_app(store: JobStore, changes: Changes, settings: Settings) -> FastAPI:
    """Return the service over `store`, an ASGI app that hears of `changes` while it runs.

    Raises `KeysError` where the API keys that are set cannot be read.
    """
    keys = read_keys(settings.api_keys.get_secret_value(), settings.api_keys_file)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _say_who_may_call(keys)
        listening = asyncio.create_task(changes.listen())
        yield
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await changes.close()

    app = FastAPI(
        lifespan=lifespan,
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
    app.include_router(submission_routes(store, changes, keys, settings))
    app.include_router(job_routes(store, changes, keys, heartbeat_seconds=settings.heartbeat_seconds))
    install_page(app, store, settings, needs_key=not keys.open)

    @app.get("/healthz", summary="The process lives")
    def healthz() -> Health:
        """Answer as long as the process can."""
        return Health(status="ok")

    @app.get("/readyz", responses=describe(HTTPStatus.SERVICE_UNAVAILABLE), summary="Ready for jobs")
    def readyz() -> Health:
        """Answer 200 where Redis answers and a worker with a loaded model is there."""
        try:
            ready = bool(store.models())
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise _not_ready("Redis does not answer", "redis") from error
        if not ready:
            raise _not_ready("no worker with a loaded model is there", "worker")
        return Health(status="ready")

    return app


def _say_who_may_call(keys: Keys) -> None:
    if keys.open:
        log.warning("no API key is set: everybody who reaches this service can use it and see every job")
    else:
        log.info("API keys of %s", ", ".join(keys.names))


def _not_ready(detail: str, missing: str) -> ProblemError:
    headers = {"Retry-After": str(POLL_SECONDS)}
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", detail, headers=headers, missing=[missing]
    )
