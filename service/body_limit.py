"""Counts the bytes of requests' bodies while they stream in: of each, whatever Content-Length says, and of
all that are held at a time; and how long each takes. Comes before everything else of the service.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError, retry_later


@dataclass(frozen=True)
class BodyLimits:
    """What bodies may take: bytes each, bytes together, seconds each."""

    each: int
    together: int
    seconds: float


class BodyLimit:
    """ASGI middleware: a body of too many bytes is a `413`, one that takes too long a `408`, one too many at
    a time a `503`.

    A body counts until the request is over, or its endpoint has called `let_body_go` of the request's state.
    """

    def __init__(self, app: ASGIApp, *, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._limits
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = declared.isdigit() and int(declared) > limits.each
        deadline = asyncio.get_running_loop().time() + limits.seconds
        received = held = 0
        complete = False

        async def counting_receive() -> Message:
            nonlocal received, held, complete
            if complete:  # whoever receives now waits for the caller to go away
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the request took more than {limits.seconds:g} s to arrive"
                headers = {"Connection": "close"}  # RFC 9110, 15.5.9
                status = HTTPStatus.REQUEST_TIMEOUT
                raise ProblemError(status, "request_too_slow", detail, headers=headers) from None
            size = len(message.get("body", b""))
            received += size
            held += size
            self._held += size
            complete = not message.get("more_body", False)
            if too_long or received > limits.each:
                detail = (
                    f"the request has more than {limits.each} bytes, the limit for its pictures and fields"
                )
                raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large", detail)
            if self._held > limits.together:
                detail = "too many pictures are being uploaded at once; try again"
                raise retry_later(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_uploads", detail)
            return message

        def let_go() -> None:
            nonlocal held
            self._held -= held
            held = 0

        scope.setdefault("state", {})["let_body_go"] = let_go
        try:
            await self._app(scope, counting_receive, send)
        finally:
            let_go()
