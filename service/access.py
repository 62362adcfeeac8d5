"""Who is calling: the API key of a request, checked before anything of its body is read. Routers whose
`route_class` is `keyed_route` are closed; `service.keys` knows the keys, whose names are the owners of jobs.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from service.keys import Keys
from service.problems import ProblemError, describe

CHALLENGE = 'Bearer realm="face-anon"'
SCHEMES: list[Callable[..., Any]] = [
    HTTPBearer(auto_error=False, description="An API key of this service."),
    APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key, in a header of its own."),
]


def closed_router(keys: Keys, prefix: str = "") -> APIRouter:
    """Return a router whose endpoints want one of `keys`, where there are any; it documents that too."""
    if keys.open:
        return APIRouter(prefix=prefix)
    return APIRouter(
        prefix=prefix,
        route_class=keyed_route(keys),
        dependencies=[Security(scheme) for scheme in SCHEMES],  # for the OpenAPI document: the check is ours
        responses=describe(HTTPStatus.UNAUTHORIZED),
    )


def keyed_route(keys: Keys) -> type[APIRoute]:
    """Return a class of routes that answer only to `keys`.

    A dependency would come too late: FastAPI reads the body, which may be a large upload, before it.
    """

    class KeyedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def check_and_answer(request: Request) -> Response:
                request.state.owner = caller_of(request, keys)
                return await answer(request)

            return check_and_answer

    return KeyedRoute


def caller_of(request: Request, keys: Keys) -> str:
    """Return the name of the key that the request came with; raises the `401` without one.

    RFC 6750, section 2.1 and 3; a bearer token beats `X-API-Key`.
    """
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


def _owner_of(request: Request) -> str | None:
    owner: str | None = getattr(request.state, "owner", None)
    return owner


Owner = Annotated[str | None, Depends(_owner_of)]
"""The name of the caller's key; None where the service is open."""
