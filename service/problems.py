"""Every error of the service as `application/problem+json` (RFC 9457) with a stable `code`, those of the
framework included. Endpoints raise `ProblemError`; `install` turns it, and the framework's, into answers;
`service.requests` those that nobody expected.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

log = logging.getLogger("face_anon.service")

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5


class InvalidField(BaseModel):
    """One field of a request that is wrong, and why."""

    field: str = Field(examples=["d"])
    reason: str = Field(examples=["Input should be less than or equal to 2"])
    value: str | None = Field(default=None, examples=["3.5"])


class ProblemAnswer(BaseModel):
    """A problem (RFC 9457). `code` is stable; `title` and `detail` are for people."""

    type: str = "about:blank"
    title: str = Field(examples=["Unsupported Media Type"])
    status: int = Field(examples=[415])
    detail: str = Field(examples=["image is not a picture we read (JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP)"])
    code: str = Field(examples=["not_a_picture"])
    request_id: str | None = Field(
        default=None,
        description="As in `X-Request-ID` and in the log.",
        examples=["0b7c55f2c1d84a0e8d1f6a5e43c2b790"],
    )
    errors: list[InvalidField] | None = Field(default=None, description="The wrong fields of a 422.")
    missing: list[str] | None = Field(default=None, description="What /readyz found missing.")


class ProblemError(HTTPException):
    """An expected failure of a request, with the code callers can rely on."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        missing: list[str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code
        self.missing = missing


def retry_later(status: HTTPStatus, code: str, detail: str) -> ProblemError:
    """Return a problem that tells the caller when to try again."""
    return ProblemError(status, code, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def describe(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the problems that an endpoint answers with."""
    return {
        status.value: {
            "description": status.phrase,
            "model": ProblemAnswer,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Let `app` answer every error with a problem."""
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    for unavailable in (RedisConnectionError, RedisTimeoutError, OutOfMemoryError):
        app.add_exception_handler(unavailable, _redis_problem)


def _answer(
    problem: ProblemAnswer, request_id: str | None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    problem.request_id = request_id
    return JSONResponse(
        problem.model_dump(exclude_none=True), problem.status, dict(headers or {}), media_type=MEDIA_TYPE
    )


async def _http_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  the handler is registered for this class
    status = HTTPStatus(error.status_code)
    ours = error if isinstance(error, ProblemError) else None
    problem = ProblemAnswer(
        title=status.phrase,
        status=status,
        detail=str(error.detail),
        code=ours.code if ours else status.name.lower(),
        missing=ours.missing if ours else None,
    )
    headers = error.headers
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed_methods(request))}
    return _answer(problem, _id_of(request), headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return every method of the path (RFC 9110, 15.5.6); the framework names those of its first route."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _validation_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  as above
    wrong = [
        InvalidField(field=_field_name(item["loc"]), reason=item["msg"], value=_shown(item.get("input")))
        for item in error.errors()
    ]
    named = "; ".join(f"{item.field}: {item.reason}" for item in wrong)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return _answer(
        ProblemAnswer(
            title=status.phrase, status=status, detail=named, code="invalid_parameter", errors=wrong
        ),
        _id_of(request),
    )


def _field_name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _shown(value: object) -> str | None:
    """Echo a short text or number; never a file."""
    return str(value)[:100] if isinstance(value, str | int | float) else None


async def _redis_problem(request: Request, error: Exception) -> JSONResponse:
    log.error("Redis does not answer: %s", error)
    detail = "The job store does not answer; try again."
    return await _http_problem(
        request, retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "store_unavailable", detail)
    )


def unexpected_problem(request_id: str) -> JSONResponse:
    """Return the `500` that stands for an error nobody expected; the log has more."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something in the service went wrong."
    problem = ProblemAnswer(title=status.phrase, status=status, detail=detail, code="internal_error")
    return _answer(problem, request_id)


def _id_of(request: Request) -> str | None:
    request_id: str | None = getattr(request.state, "request_id", None)
    return request_id
