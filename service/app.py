"""The service as one ASGI app: its endpoints, and what every request goes through before and after them.

`service.main` runs it; `service.submission` makes jobs, `service.job_endpoints` has what comes after.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pi_heif
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from PIL import Image
from starlette.formparsers import MultiPartParser

from jobs.changes import Changes
from jobs.limits import RequestRate
from jobs.store import JobStore
from service.access import Access
from service.body_limit import BodyLimit, BodyLimits
from service.docs_page import install_docs
from service.gateway import Gateway
from service.health import health_routes
from service.job_endpoints import job_routes
from service.keys import Keys, read_keys
from service.metrics import RequestMetrics, WholeService, metrics_route
from service.page.routes import install_page
from service.problems import describe, install
from service.requests import Requests
from service.schemas import write_whole_limits
from service.settings import Settings, trusted_networks
from service.submission import submission_routes
from service.upkeep import look_after_jobs
from service.waiting import let_go_at_exit

log = logging.getLogger("face_anon.service")

ROOM_FOR_FIELDS = 64 * 1024
CALLERS_HEADERS = ["Authorization", "X-API-Key", "Idempotency-Key", "Prefer", "X-Request-ID", "Last-Event-ID"]
ANSWERS_HEADERS = ["Location", "Retry-After", "ETag", "Preference-Applied", "X-Request-ID"]


def create_app(store: JobStore, changes: Changes, settings: Settings) -> FastAPI:
    """Return the service over `store`, an ASGI app that hears of `changes` while it runs.

    Raises `KeysError` where the API keys that are set cannot be read.
    """
    keys = read_keys(settings.api_keys.get_secret_value(), settings.api_keys_file)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        _say_who_may_call(keys)
        let_go_at_exit(changes)
        tasks = [
            asyncio.create_task(changes.listen()),
            asyncio.create_task(look_after_jobs(store)),
            asyncio.create_task(metrics.count_waits(lambda: changes.watchers)),
        ]
        yield
        await _end(tasks)
        await changes.close()

    app = FastAPI(
        lifespan=lifespan,
        title="face-anon",
        version="0.1.0",
        summary="Anonymizes or swaps the faces in photos.",
        responses=describe(HTTPStatus.INTERNAL_SERVER_ERROR),
        docs_url=None,  # install_docs has it
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host, which a gateway hides
    )
    each = 2 * settings.max_upload_bytes + ROOM_FOR_FIELDS
    body_limits = BodyLimits(
        each=each,
        together=max(each, settings.max_uploading_bytes),
        seconds=settings.upload_seconds,
    )
    MultiPartParser.spool_max_size = each  # an upload stays in memory: it never touches the disk
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked from the header
    pi_heif.register_heif_opener()
    metrics = RequestMetrics()
    install(app)
    _add_middleware(app, settings, body_limits, metrics)
    access = Access(keys, _rate(store, settings))
    app.include_router(submission_routes(store, changes, access, settings))
    app.include_router(job_routes(store, changes, access, heartbeat_seconds=settings.heartbeat_seconds))
    app.include_router(health_routes(store))
    write_whole_limits(app)
    install_docs(app)
    install_page(app, store, settings, needs_key=not keys.open)
    scraped = Access(keys).router() if settings.metrics_need_key else APIRouter()
    app.include_router(metrics_route(scraped, WholeService(store, metrics)))
    return app


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: a cancellation that meets a library's own timeout can be lost."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)


def _add_middleware(app: FastAPI, settings: Settings, limits: BodyLimits, metrics: RequestMetrics) -> None:
    """Wrap the endpoints, from the innermost to the outermost."""
    app.add_middleware(BodyLimit, limits=limits)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=CALLERS_HEADERS,
            expose_headers=ANSWERS_HEADERS,
        )
    app.add_middleware(Requests, metrics=metrics)
    app.add_middleware(
        Gateway, trusted=trusted_networks(settings.trusted_proxies), root_path=settings.root_path
    )


def _rate(store: JobStore, settings: Settings) -> RequestRate | None:
    if not settings.requests_per_second:
        return None
    return store.request_rate(settings.requests_per_second, settings.request_burst)


def _say_who_may_call(keys: Keys) -> None:
    if keys.open:
        log.warning("no API key is set: everybody who reaches this service can use it and see every job")
    else:
        log.info("API keys of %s", ", ".join(keys.names))
