"""Behind a gateway: what trusted proxies say of a request (`X-Forwarded-*`), and the root path of links.
Comes first of all; without trusted proxies such headers mean nothing.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import Network

ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Gateway:
    """ASGI middleware: sets scheme, client and root path of a request as the proxy in front tells them.

    `X-Forwarded-For` and `-Proto` are read as uvicorn does; `X-Forwarded-Prefix` is the path that the proxy
    took away, or left, before ours. Without it `root_path` counts.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network], root_path: str) -> None:
        self._app = app
        self._trusted = trusted
        self._root_path = root_path
        # uvicorn's own types of ASGI are narrower than Starlette's
        forwarded = ProxyHeadersMiddleware(
            cast("ASGI3Application", app), [str(network) for network in trusted]
        )
        self._forwarded = cast("ASGIApp", forwarded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as its caller sent it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._root_path
        if not self._is_trusted(scope):
            await self._app(scope, receive, send)
            return
        prefix = dict(scope["headers"]).get(b"x-forwarded-prefix", b"").decode("latin-1").rstrip("/")
        if ROOT_PATH.fullmatch(prefix):
            scope["root_path"] = prefix
        await self._forwarded(scope, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        if not self._trusted or not scope.get("client"):
            return False
        try:
            peer = ipaddress.ip_address(scope["client"][0])
        except ValueError:
            return False
        return any(peer in network for network in self._trusted)
