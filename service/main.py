"""Runs the service: settings from the environment, the app, uvicorn; in one process, or in several on one
socket. All that those share is in Redis, but for their numbers for `/metrics`, which are in files.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import warnings
from multiprocessing.process import BaseProcess

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from jobs.changes import Changes
from jobs.logs import log_json_lines
from jobs.store import JobStore, connect
from service.app import create_app
from service.keys import KeysError, read_keys
from service.metrics import SHARED_FOLDER
from service.settings import Settings

log = logging.getLogger("face_anon.service")

BAD_SETTINGS = 2
HUNG_SECONDS = 30
"""After how long without an answer one of several processes is replaced."""


def run_service(host: str, port: int, redis_url: str, processes: int = 1) -> int:
    """Serve until SIGTERM or SIGINT, letting open requests finish; returns the exit code."""
    log_json_lines("service")
    os.environ["REDIS_URL"] = redis_url  # for `make_app`, in whatever process
    try:
        if processes > 1:  # which could only die of wrong settings
            settings = Settings()
            read_keys(settings.api_keys.get_secret_value(), settings.api_keys_file)
        _serve(host, port, processes)
    except ValidationError as error:
        for wrong in error.errors():
            log.error("FACE_ANON_%s: %s", str(wrong["loc"][0]).upper(), wrong["msg"])  # noqa: TRY400
        return BAD_SETTINGS
    except KeysError as error:
        log.error("%s", error)  # noqa: TRY400  the sentence is for the operator
        return BAD_SETTINGS
    return 0


def _serve(host: str, port: int, processes: int) -> None:
    with tempfile.TemporaryDirectory(prefix="face-anon-metrics-") as folder:
        if processes > 1:
            os.environ[SHARED_FOLDER] = folder
        uvicorn.run(
            "service.main:make_app",
            factory=True,
            workers=processes,
            timeout_worker_healthcheck=HUNG_SECONDS,
            host=host,
            port=port,
            log_config=None,
            log_level="warning",
            access_log=False,  # service.requests logs
            proxy_headers=False,  # service.gateway reads them
            timeout_graceful_shutdown=5,
        )


def make_app() -> FastAPI:
    """Return the app that a process serves."""
    settings = Settings()
    log_json_lines("service", settings.log_level)
    warnings.filterwarnings("ignore", module="PIL")  # its doubts about uploads are no news for the log
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
    redis_url = os.environ["REDIS_URL"]
    return create_app(JobStore(connect(redis_url)), Changes(redis_url), settings)


def _stop_with(parent: BaseProcess) -> None:
    """Stop this process when the one that watches over it is gone, even with -9."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
