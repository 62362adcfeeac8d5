"""Serves the page at `/`, its files and sample pictures under `/page/`, and what the page must know of this
service. Everything is linked relative to the page, so that it works behind any root path.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.staticfiles import StaticFiles

from jobs.contract import Defaults, PictureFormat, Sampler
from jobs.store import JobStore
from service.settings import Settings

STATIC = Path(__file__).parent / "static"
SAMPLES_FOLDER = Path(__file__).parent.parent.parent / "samples"
SAMPLES = {
    "astronaut.png": "Eileen Collins, NASA, public domain",
    "group.png": "Three rendered faces",
    "portrait-1.png": "A rendered face",
    "portrait-2.png": "A rendered face with beard and glasses",
    "portrait-3.png": "A rendered face with curls",
    "portrait-4.png": "A rendered face with a beard",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load (Content Security Policy): nothing but its own; pictures also from its memory."""

ACCEPTED = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/avif",
    "image/heic",
    "image/heif",
    "image/tiff",
    "image/bmp",
)
"""Media types of the pictures that `service.uploads` reads, as browsers name them."""


class Readiness(StrEnum):
    """Whether a job would be done now."""

    READY = "ready"
    NO_WORKER = "no_worker"
    NO_STORE = "no_store"


class Sample(BaseModel):
    """A picture to try the page with; `url` is relative to the page."""

    url: str
    title: str


class PageModel(BaseModel):
    """The weights of the workers, as far as the page shows them."""

    name: str
    warnings: list[str]
    defaults: Defaults


class PageConfig(BaseModel):
    """What the page must know before it sends a photo."""

    readiness: Readiness
    needs_key: bool
    model: PageModel | None
    max_upload_bytes: int
    max_pixels: int
    result_seconds: int
    accepted: tuple[str, ...]
    formats: list[PictureFormat]
    samplers: list[Sampler]
    samples: list[Sample]


class _Files(StaticFiles):
    """Files that browsers check for a newer version before each use."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401  starlette's own signature
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install_page(app: FastAPI, store: JobStore, settings: Settings, *, needs_key: bool) -> None:
    """Let `app` serve the page; none of it needs a key, only what the page then asks of the API."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        return FileResponse(STATIC / "index.html", headers=headers)

    @app.get("/page/config.json", include_in_schema=False)
    def config(response: Response) -> PageConfig:
        response.headers["Cache-Control"] = "no-store"
        readiness, model = _model(store)
        return PageConfig(
            readiness=readiness,
            needs_key=needs_key,
            model=model,
            max_upload_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            result_seconds=settings.result_seconds,
            accepted=ACCEPTED,
            formats=list(PictureFormat),
            samplers=list(Sampler),
            samples=[Sample(url=f"page/samples/{name}", title=title) for name, title in SAMPLES.items()],
        )

    app.mount("/page/samples", _Files(directory=SAMPLES_FOLDER))
    app.mount("/page", _Files(directory=STATIC))


def _model(store: JobStore) -> tuple[Readiness, PageModel | None]:
    try:
        models = store.models()
    except (RedisConnectionError, RedisTimeoutError):
        return Readiness.NO_STORE, None
    if not models:
        return Readiness.NO_WORKER, None
    model = models[0]
    return Readiness.READY, PageModel(name=model.name, warnings=model.warnings, defaults=model.defaults)
