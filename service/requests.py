"""Each request as a whole: its id, its security headers, its line in the log, its numbers for `/metrics`, and
the problem that stands for an unexpected error. Wraps everything but the gateway's headers.
"""

import logging
import re
import time
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import RequestMetrics
from service.problems import unexpected_problem

log = logging.getLogger("face_anon.service")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
JOB_ID = re.compile(r"[0-9a-f]{32}")
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
CONTENT_SECURITY_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
"""What every answer carries unless it says something else itself."""


class Requests:
    """ASGI middleware around every request.

    An `X-Request-ID` of the caller's is taken over where it is letters, digits, `._:-`, at most 128; the
    answer, its problem, the log and the job have it.
    """

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and look at what goes in and out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        sent_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = sent_id if REQUEST_ID.fullmatch(sent_id) else token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        received = sent = 0

        async def receive_and_count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_and_count(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                names = {name for name, _value in headers}
                headers += [header for header in SECURITY_HEADERS if header[0] not in names]
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_and_count, send_and_count)
        except Exception:
            log.exception("unexpected error", extra={"request_id": request_id})
            if status:
                raise  # the answer is under way: the server breaks the connection
            await unexpected_problem(request_id)(scope, receive, send_and_count)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "-")
            self._metrics.observe(scope["method"], route, status, seconds, received)
            self._log(scope, route, status, seconds, received, sent)

    @staticmethod
    def _log(scope: Scope, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        level = logging.DEBUG if route in PROBES else logging.INFO
        if not log.isEnabledFor(level):
            return
        state = scope["state"]
        job = scope.get("path_params", {}).get("job_id", state.get("job_id"))
        fields = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "key": state.get("owner"),
            "job": job if job and JOB_ID.fullmatch(job) else None,
            "received_bytes": received,
            "sent_bytes": sent,
            "ms": round(seconds * 1000, 1),
        }
        log.log(level, "request", extra={name: value for name, value in fields.items() if value is not None})
