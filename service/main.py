"""Runs the service process: settings from the environment, Redis clients, the app, uvicorn."""

from types import FrameType

import uvicorn

from jobs.changes import Changes
from jobs.store import JobStore, connect
from service.app import create_app
from service.settings import Settings


class _Server(uvicorn.Server):
    """Uvicorn, which lets requests that wait for a job go when it is told to stop."""

    def __init__(self, config: uvicorn.Config, changes: Changes) -> None:
        super().__init__(config)
        self._changes = changes

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._changes.end()
        super().handle_exit(sig, frame)


def run_service(host: str, port: int, redis_url: str) -> None:
    """Serve until SIGTERM or SIGINT, letting open requests finish."""
    changes = Changes(redis_url)
    app = create_app(JobStore(connect(redis_url)), changes, Settings())
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    _Server(config, changes).run()
