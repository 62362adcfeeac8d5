"""Runs the service process: settings from the environment, Redis clients, the app, uvicorn."""

import logging
import warnings
from types import FrameType

import uvicorn
from pydantic import ValidationError

from jobs.changes import Changes
from jobs.logs import log_json_lines
from jobs.store import JobStore, connect
from service.app import create_app
from service.keys import KeysError
from service.settings import Settings

log = logging.getLogger("face_anon.service")

BAD_SETTINGS = 2


class _Server(uvicorn.Server):
    """Uvicorn, which lets requests that wait for a job go when it is told to stop."""

    def __init__(self, config: uvicorn.Config, changes: Changes) -> None:
        super().__init__(config)
        self._changes = changes

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._changes.end()
        super().handle_exit(sig, frame)


def run_service(host: str, port: int, redis_url: str) -> int:
    """Serve until SIGTERM or SIGINT, letting open requests finish; returns the exit code."""
    log_json_lines("service")
    warnings.filterwarnings("ignore", module="PIL")  # its doubts about uploads are no news for the log
    try:
        settings = Settings()
        logging.getLogger().setLevel(settings.log_level)
        changes = Changes(redis_url)
        app = create_app(JobStore(connect(redis_url)), changes, settings)
    except ValidationError as error:
        for wrong in error.errors():
            log.error("FACE_ANON_%s: %s", str(wrong["loc"][0]).upper(), wrong["msg"])  # noqa: TRY400
        return BAD_SETTINGS
    except KeysError as error:
        log.error("%s", error)  # noqa: TRY400  the sentence is for the operator
        return BAD_SETTINGS
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,  # service.requests logs
        proxy_headers=False,  # service.gateway reads them
        timeout_graceful_shutdown=5,
    )
    _Server(config, changes).run()
    return 0
