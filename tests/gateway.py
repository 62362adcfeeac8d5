"""A gateway that makes trouble: it stands before a real service, under a path of its own, and busies, drops,
loses and cuts off as a test tells it.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Trouble(Enum):
    """What befalls one request."""

    DROP = "the connection breaks before the service has heard of it"
    LOSE = "the service does it, and the answer is lost"
    CUT = "the answer breaks off after its first part"


@dataclass(frozen=True)
class Busy:
    """The answer of a service that has no time."""

    status: int
    retry_after: str | None = None
    code: str = "busy"


@dataclass(frozen=True)
class Heard:
    """A request that came in."""

    line: str
    headers: dict[str, str]


@dataclass
class Gateway:
    """The address to call, what came in, and what is to befall requests that fit a pattern."""

    url: str
    troubles: list[tuple[str, Trouble | Busy]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)

    def trouble_for(self, line: str) -> Trouble | Busy | None:
        """Take the first trouble that fits."""
        for number, (pattern, trouble) in enumerate(self.troubles):
            if re.fullmatch(pattern, line):
                del self.troubles[number]
                return trouble
        return None

    def lines(self, pattern: str = ".*") -> list[str]:
        """Return the requests that fit, as METHOD path."""
        return [request.line for request in self.heard if re.fullmatch(pattern, request.line)]


@contextlib.contextmanager
def gateway(upstream: str, prefix: str = "") -> Iterator[Gateway]:
    """Run a gateway before `upstream`, at a root path `prefix` that the service does not know of."""

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.removeprefix(prefix)
            line = f"{self.command} {path}"
            running.heard.append(Heard(line, {name.lower(): value for name, value in self.headers.items()}))
            trouble = running.trouble_for(line)
            if not self.path.startswith(f"{prefix}/"):
                self._answer(Busy(404))
            elif isinstance(trouble, Busy):
                self._answer(trouble)
            elif trouble is not Trouble.DROP:
                self._forward(path, body, trouble)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_DELETE = do_any  # noqa: N815  the library's names

        def _answer(self, busy: Busy) -> None:
            self.send_response(busy.status)
            if busy.retry_after is not None:
                self.send_header("Retry-After", busy.retry_after)
            content = f'{{"title": "Busy", "detail": "come back later", "code": "{busy.code}"}}'.encode()
            self.send_header("X-Request-ID", "request-7")
            self.send_header("Content-Type", "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _forward(self, path: str, body: bytes, trouble: Trouble | Busy | None) -> None:
            kept = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in {"host", "connection"}
            }
            with httpx.stream(
                self.command, upstream + path, headers=kept, content=body, timeout=90
            ) as answer:
                if trouble is Trouble.LOSE:
                    answer.read()
                    return
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in {"transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the caller has left
                    for part in answer.iter_raw(1000 if trouble else None):
                        self.wfile.write(part)
                        if trouble is Trouble.CUT:
                            return

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = Gateway(f"http://127.0.0.1:{server.server_port}{prefix}")
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield running
        finally:
            server.shutdown()
            serving.join()
