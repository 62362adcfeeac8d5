"""Requests and answers as values: what a call sends, and what its answer means. Nothing here does input or
output but reading a picture; `flows` puts calls in order, the clients send them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

import httpx

from face_anon_client.errors import (
    AuthenticationError,
    InvalidField,
    InvalidRequestError,
    JobNotFoundError,
    ProblemError,
    RateLimitedError,
    ResultExpiredError,
    ServiceUnavailableError,
    UnexpectedAnswerError,
)
from face_anon_client.retries import seconds_of

DEFAULT_URL = "http://127.0.0.1:8000"

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A picture: the path of a file, its bytes, or an open binary file."""


class SwapParameters(TypedDict, total=False):
    """What a job can be made with; what is left out, the service fills in with its model's defaults."""

    seed: int
    steps: int
    guidance_scale: float
    sampler: str
    faces: Literal["all", "largest", "aligned"]
    format: Literal["png", "jpeg", "webp", "avif"]
    reference: str


class Parameters(SwapParameters, total=False):
    """As for a swap, and the degree of anonymization, 0 to 2."""

    d: float


@dataclass(frozen=True)
class Call:
    """One request: `target` is a path below the base URL, or a link of a job: a path from the root."""

    method: str
    target: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    read_seconds: float | None = None
    """How long to wait for a byte of the answer; None for as long as any other request."""


@dataclass(frozen=True)
class Address:
    """Where the service is and who calls."""

    base: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    seconds: float

    def request(self, http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
        """Return the request of a call for `http` to send."""
        # A picture has no name of its own: file names may say who is on it, and the service ignores them.
        files = {name: (name, picture, "application/octet-stream") for name, picture in call.pictures.items()}
        return http.build_request(
            call.method,
            self._url(call),
            headers={**self.headers, **call.headers},
            data=dict(call.form) or None,
            files=files or None,
            timeout=httpx.Timeout(self.seconds, read=call.read_seconds or self.seconds),
        )

    def _url(self, call: Call) -> httpx.URL:
        root = self.base.path.rstrip("/")
        if not call.target.startswith("/") and "://" not in call.target:
            return self.base.copy_with(path=f"{root}/{call.target}", params=call.query)
        # Only the path of a link counts: an API key goes to no other origin. A gateway may take its prefix
        # off without telling the service, whose links then lack it.
        path = httpx.URL(call.target).path
        inside = not root or path.startswith(f"{root}/")
        return self.base.copy_with(path=path if inside else root + path, params=call.query)


def address(base_url: str | None, api_key: str | None, seconds: float) -> Address:
    """Return where to send calls; what is None is read from `FACE_ANON_URL` and `FACE_ANON_API_KEY`.

    Raises `ValueError` for what is no HTTP address, or cannot be a key; a key is never named.
    """
    base = httpx.URL(base_url or os.environ.get("FACE_ANON_URL") or DEFAULT_URL)
    if base.scheme not in {"http", "https"} or not base.host:
        raise ValueError(f"{base!r} is not the address of a service: it starts with http:// or https://")
    if base.userinfo:
        raise ValueError(
            "a base URL with a password would be shown in errors: give `http` its `auth` instead"
        )
    headers = {"Accept": "application/json"}
    key = (os.environ.get("FACE_ANON_API_KEY", "") if api_key is None else api_key).strip()
    if key:
        check_header("the API key", key)
        headers["Authorization"] = f"Bearer {key}"
    return Address(base.copy_with(query=None, fragment=None), headers, seconds)


def check_header(name: str, value: str) -> None:
    """Raise `ValueError` where `value` cannot be sent in a header, without naming it."""
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"{name} has characters that cannot be sent")


def read_picture(picture: Picture) -> bytes:
    """Return the bytes of a picture; raises `OSError` where a file cannot be read."""
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    return picture.read()


def form_of(parameters: Mapping[str, Any], allowed: type) -> dict[str, str]:
    """Return the fields to send: those that were given. Raises `TypeError` for a name that is none."""
    known: frozenset[str] = allowed.__optional_keys__  # type: ignore[attr-defined]  # of a TypedDict
    if unknown := sorted(parameters.keys() - known):
        raise TypeError(f"unknown parameter {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return {name: str(value) for name, value in parameters.items() if value is not None}


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401  any JSON
    """Return the JSON of an answer; raises `UnexpectedAnswerError` where it is none."""
    try:
        return response.json()
    except ValueError as error:
        raise UnexpectedAnswerError(
            f"{response.url} answered {response.status_code} without JSON: is this the right address?"
        ) from error


BUSY = {429, 502, 503, 504}
PROBLEMS: dict[int, type[ProblemError]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidRequestError),
    **dict.fromkeys((401, 403), AuthenticationError),
    404: JobNotFoundError,
    410: ResultExpiredError,
    429: RateLimitedError,
    **dict.fromkeys((502, 503, 504), ServiceUnavailableError),
}


def problem_of(response: httpx.Response) -> ProblemError:
    """Return what an answer that is no success says, also where a gateway and not the service gave it."""
    status = response.status_code
    problem = _problem_document(response)
    detail = f"{response.url} answered {status} {response.reason_phrase}".rstrip()
    if response.has_redirect_location:
        detail += f", a redirect to {response.headers['location']}: set the base URL to where the service is"
    return PROBLEMS.get(status, ProblemError)(
        status=status,
        code=str(problem.get("code", "unexpected_answer")),
        title=str(problem.get("title", response.reason_phrase)),
        detail=str(problem.get("detail", detail)),
        retryable=bool(problem.get("retryable", status in BUSY)),
        request_id=response.headers.get("x-request-id"),
        retry_after=seconds_of(response.headers.get("retry-after")),
        errors=tuple(
            InvalidField(str(item.get("field")), str(item.get("reason")))
            for item in problem.get("errors") or ()
        ),
    )


def _problem_document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
