"""Who is calling, and whether it may call now: checked before anything of a request's body is read.
`service.keys` knows the API keys, whose names are the owners of jobs; `jobs.limits` counts requests.
"""

import math
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from jobs.limits import RequestRate
from service.keys import Keys
from service.problems import ProblemError, describe

CHALLENGE = 'Bearer realm="face-anon"'
SCHEMES: list[Callable[..., Any]] = [
    HTTPBearer(auto_error=False, description="An API key of this service."),
    APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key, in a header of its own."),
]


class Access:
    """The door of the endpoints that cost something: one of `keys`, where there are any, within `rate`."""

    def __init__(self, keys: Keys, rate: RequestRate | None = None) -> None:
        self._keys = keys
        self._rate = rate

    def router(self, prefix: str = "") -> APIRouter:
        """Return a router whose endpoints are behind this door, and documented so."""
        problems = [HTTPStatus.UNAUTHORIZED] if not self._keys.open else []
        problems += [HTTPStatus.TOO_MANY_REQUESTS] if self._rate else []
        if not problems:
            return APIRouter(prefix=prefix)
        return APIRouter(
            prefix=prefix,
            route_class=self._route_class(),
            # for the OpenAPI document: what they find is not asked for
            dependencies=[] if self._keys.open else [Security(scheme) for scheme in SCHEMES],
            responses=describe(*problems),
        )

    async def enter(self, request: Request) -> None:
        """Note the caller's name, None where the service is open; raises the `401` and the `429`."""
        owner = None if self._keys.open else _name_of_key(request, self._keys)
        request.state.owner = owner
        if self._rate:
            address = request.client.host if request.client else ""
            caller = f"address {address}" if owner is None else f"key {owner}"
            seconds = await run_in_threadpool(self._rate.seconds_to_wait, caller)
            if seconds:
                detail = f"too many requests at once; the next one is taken in {seconds} s"
                headers = {"Retry-After": str(math.ceil(seconds))}
                raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", detail, headers=headers)

    def _route_class(self) -> type[APIRoute]:
        """Return routes that check first. A dependency would come too late: FastAPI reads the body before."""
        access = self

        class GuardedRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                answer = super().get_route_handler()

                async def enter_and_answer(request: Request) -> Response:
                    await access.enter(request)
                    return await answer(request)

                return enter_and_answer

        return GuardedRoute


def _name_of_key(request: Request, keys: Keys) -> str:
    """Return whose key the request came with (RFC 6750, sections 2.1 and 3); a token beats `X-API-Key`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not sent:
        detail = "this needs an API key: Authorization: Bearer …, or X-API-Key: …"
        raise _unauthorized("key_missing", detail, CHALLENGE)
    name = keys.name_of(sent)
    if name is None:
        raise _unauthorized(
            "key_wrong", "the API key is not one of this service", f'{CHALLENGE}, error="invalid_token"'
        )
    return name


def _unauthorized(code: str, detail: str, challenge: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNAUTHORIZED, code, detail, headers={"WWW-Authenticate": challenge})


def owner_of(request: Request) -> str | None:
    """Return the name of the caller's key; None where the service is open."""
    owner: str | None = getattr(request.state, "owner", None)
    return owner
