"""Keeps one worker process alive for each device, and puts the jobs of one that dies back at once.

`face-anon worker` runs it. Where no CUDA is wanted it imports the networks' libraries itself, once, and
forks: a worker is replaced in the time that its checkpoint takes to load. CUDA does not survive a fork.
"""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from redis.exceptions import RedisError

from jobs.logs import log_json_lines
from jobs.maintenance import TICK_SECONDS, Maintenance
from jobs.store import JobStore, connect
from worker import CANNOT_START

log = logging.getLogger("face_anon.supervisor")

_INNOCENT = (0, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes that are no job's doing."""

LOOK_SECONDS = 0.2
GIVE_UP_SECONDS = 10
"""How long after its grace period a worker that was told to stop is killed."""
HEALTHY_SECONDS = 10
"""After living this long a worker is started again at once when it dies; before, later each time."""
MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class WorkerOptions:
    """What worker processes are started with; `slots` is how many jobs, and faces, one does at a time."""

    redis_url: str
    checkpoint: Path
    precision: str
    face_threshold: float
    slots: int | None
    grace_seconds: float
    compiled: bool = False
    memory_fraction: float | None = None


def device_names(devices: str) -> list[str]:
    """Return torch's names of devices in the form "cpu", "cuda:1" or "0,1"."""
    names = [name.strip() for name in devices.split(",") if name.strip()]
    return [f"cuda:{name}" if name.isdigit() else name for name in names] or ["cpu"]


def pause_after(deaths: int) -> float:
    """Return how many seconds to wait after the last of several quick deaths."""
    return min(0.5 * 2 ** (deaths - 2), MAX_PAUSE_SECONDS) if deaths > 1 else 0.0


def run_supervisor(options: WorkerOptions, devices: Sequence[str]) -> int:
    """Supervise until SIGTERM or SIGINT; returns the exit code, 2 where a worker cannot start."""
    log_json_lines("supervisor")
    logging.getLogger("rq.job").setLevel(logging.WARNING)
    supervisor = Supervisor(options, devices)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.ask_to_stop)
    return supervisor.run()


@dataclass
class _Worker:
    """One device and the process that works on it."""

    device: str
    name: str = ""
    process: BaseProcess | None = None
    started: float = 0.0
    deaths: int = 0
    """Since it last lived for `HEALTHY_SECONDS`."""
    start_at: float = 0.0
    gone: list[tuple[str, bool]] = field(default_factory=list)
    """Names of processes whose jobs may not have been put back yet, and whether a job may be to blame."""


class Supervisor:
    """The worker processes of this machine."""

    def __init__(self, options: WorkerOptions, devices: Sequence[str]) -> None:
        self._options = options
        self._workers = [_Worker(device) for device in devices]
        self._maintenance = Maintenance(JobStore(connect(options.redis_url)))
        self._context = _context(devices)
        self._asked_to_stop = 0
        self._redis_away = False

    def ask_to_stop(self, number: int, frame: object) -> None:  # noqa: ARG002  a handler's
        """Stop gracefully the first time, at once the second time."""
        self._asked_to_stop += 1

    def run(self) -> int:
        """Start the workers and replace those that die, until asked to stop."""
        next_tick = 0.0
        while not self._asked_to_stop:
            now = time.monotonic()
            for worker in self._workers:
                if worker.process is None and now >= worker.start_at:
                    self._start(worker)
            wait([worker.process.sentinel for worker in self._workers if worker.process], LOOK_SECONDS)
            for worker in self._workers:
                if self._reap(worker) == CANNOT_START:
                    log.error("the worker cannot start")
                    self._asked_to_stop += 1
                    self._stop()
                    return CANNOT_START
            if now >= next_tick:
                self._look_after_jobs()
                next_tick = now + TICK_SECONDS
        self._stop()
        return 0

    def _start(self, worker: _Worker) -> None:
        worker.name = f"{socket.gethostname()}-{worker.device.replace(':', '')}-{secrets.token_hex(3)}"
        worker.process = self._context.Process(  # type: ignore[attr-defined]
            target=_work, args=(worker.name, worker.device, self._options), name=worker.name, daemon=True
        )
        worker.process.start()
        worker.started = time.monotonic()

    def _reap(self, worker: _Worker) -> int | None:
        """Return the exit code of a worker that has just died; its jobs are put back at once."""
        process = worker.process
        if process is None or process.is_alive():
            return None
        code = process.exitcode
        process.close()
        worker.process = None
        lived = time.monotonic() - worker.started
        worker.deaths = 0 if code == 0 or lived > HEALTHY_SECONDS else worker.deaths + 1
        pause = pause_after(worker.deaths)
        worker.start_at = time.monotonic() + pause
        blame = code not in _INNOCENT and not self._asked_to_stop
        worker.gone.append((worker.name, blame))
        self._look_after_jobs()
        if not self._asked_to_stop:
            log.warning(
                "the worker on %s ended with %s; the next starts in %.1f s", worker.device, code, pause
            )
        return code

    def _look_after_jobs(self) -> None:
        try:
            for worker in self._workers:
                while worker.gone:
                    name, blame = worker.gone[0]
                    if blame:
                        self._maintenance.abandon(name)
                    else:
                        self._maintenance.put_back(name)
                    del worker.gone[0]
            self._maintenance.tick()
            self._redis_away = False
        except RedisError as error:
            if not self._redis_away:
                log.warning("Redis is away: %s", error)
            self._redis_away = True

    def _stop(self) -> None:
        """Stop the workers as this process is asked to, and kill those that do not."""
        asked = 0
        kill_at = time.monotonic() + self._options.grace_seconds + GIVE_UP_SECONDS
        while alive := [worker for worker in self._workers if worker.process]:
            for worker in alive:
                process = worker.process
                if process and asked < self._asked_to_stop:
                    process.terminate()
                elif process and time.monotonic() > kill_at:
                    log.warning("the worker on %s does not stop, killing it", worker.device)
                    process.kill()
            asked = self._asked_to_stop
            wait([worker.process.sentinel for worker in alive if worker.process], LOOK_SECONDS)
            for worker in alive:
                self._reap(worker)


def _context(devices: Sequence[str]) -> BaseContext:
    """Return how processes are made; for forks, with everything that takes long to import in place."""
    if any(device.startswith("cuda") for device in devices):
        return get_context("spawn")
    import worker.main  # noqa: F401

    return get_context("fork")


def _work(name: str, device: str, options: WorkerOptions) -> None:
    """Be the worker process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()  # Ctrl-C in a terminal goes to the supervisor, which passes it on
    threading.Thread(target=_stop_with_supervisor, name="supervisor", daemon=True).start()
    from worker.main import run_worker

    run_worker(name, device, options)


def _stop_with_supervisor() -> None:
    supervisor = parent_process()
    if supervisor:
        supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
