"""Runs the service process: settings from the environment, a Redis client, the app, uvicorn."""

import uvicorn

from jobs.store import JobStore, connect
from service.app import create_app
from service.settings import Settings


def run_service(host: str, port: int, redis_url: str) -> None:
    """Serve until SIGTERM or SIGINT, letting open requests finish."""
    app = create_app(JobStore(connect(redis_url)), Settings())
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
