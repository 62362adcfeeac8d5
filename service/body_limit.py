"""Counts the bytes of a request's body while they stream in and stops at the limit, whatever Content-Length
says. Comes before everything else of the service.
"""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError


class BodyLimit:
    """ASGI middleware: a body of more than `limit` bytes is a `413`."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = declared.isdigit() and int(declared) > self._limit
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if too_long or received > self._limit:
                detail = (
                    f"the request has more than {self._limit} bytes, the limit for its pictures and fields"
                )
                raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large", detail)
            return message

        await self._app(scope, counting_receive, send)
