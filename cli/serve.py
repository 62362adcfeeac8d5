"""`face-anon serve`: an embedded Redis, the service and one worker as child processes, started in order,
watched, and stopped together. Each child is what production runs: `face-anon service`, `face-anon worker`.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from worker import CANNOT_START

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1


class ChildStoppedError(Exception):
    """A child process ended that the others cannot do without."""


def run_everything(host: str, port: int, redis_url: str | None, worker_options: Mapping[str, str]) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code, 1 where a part could not run.

    `worker_options` are those of `face-anon worker`, by name.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        port = _free_port(host, port)
        with contextlib.ExitStack() as stack:
            if redis_url is None:
                redis_url = stack.enter_context(_embedded_redis(stopping))
            options = [part for option in worker_options.items() for part in option]
            worker = _Child("worker", *options, "--redis-url", redis_url)
            stack.callback(worker.stop)
            service = _Child("service", "--host", host, "--port", str(port), "--redis-url", redis_url)
            stack.callback(service.stop)
            _say(f"starting at http://{host}:{port} with {worker_options['--checkpoint']}")
            _watch(service, worker, f"http://{host}:{port}", stopping)
    except ChildStoppedError as error:
        _say(str(error))
        return 1
    _say("stopped")
    return 0


class _Child:
    """One `face-anon` command as a child process, out of reach of the terminal's Ctrl-C."""

    def __init__(self, command: str, *arguments: str) -> None:
        self.command = command
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "cli.main", self.command, *self._arguments, "--stop-with-stdin"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def stop(self) -> None:
        """Ask twice, as a worker that is in a job wants to be asked, then kill."""
        for _ in range(2):
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_SECONDS)
                break
        else:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


@contextlib.contextmanager
def _embedded_redis(stopping: threading.Event) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="face-anon-") as folder:
        path = Path(folder) / "redis.sock"
        child = _Child("embedded-redis", str(path))
        redis = Redis(unix_socket_path=str(path), retry=Retry(NoBackoff(), retries=0))
        try:
            while not _answers(redis) and not stopping.wait(POLL_SECONDS):
                if child.process.poll() is not None:
                    raise ChildStoppedError("the embedded Redis did not start")
            yield f"unix://{path}"
        finally:
            child.stop()
            with contextlib.suppress(RedisError):  # where the child was killed, its server still runs
                redis.shutdown(nosave=True)


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def _watch(service: _Child, worker: _Child, url: str, stopping: threading.Event) -> None:
    ready = False
    while not stopping.wait(POLL_SECONDS):
        if (code := service.process.poll()) is not None:
            raise ChildStoppedError(f"the service stopped with exit code {code}")
        if (code := worker.process.poll()) is not None:
            if code == CANNOT_START:
                raise ChildStoppedError("the worker cannot start")
            _say(f"the worker stopped with exit code {code}; starting it again")
            time.sleep(1)
            worker.start()
        if not ready and (ready := _is_ready(url)):
            _say(f"ready at {url}")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310  our own address
            return True
    except (urllib.error.URLError, OSError):
        return False


def _free_port(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ChildStoppedError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def _say(sentence: str) -> None:
    print(f"face-anon: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
