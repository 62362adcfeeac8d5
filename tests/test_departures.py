"""Callers who go away in the middle of anything leave no connection, no watcher and no traceback behind."""

import socket
import tempfile
from pathlib import Path

import httpx
from conftest import eventually, serve_alone
from hostile_requests import GOOD, post
from test_hostile import MAX_KILOBYTES, peak_kilobytes

CALLERS = 60
REDIS_CONNECTIONS = 45  # one for each thread of the pool, kept for later


def open_files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list((Path("/proc") / str(pid) / "fd").iterdir()))


def begin(url: str, request: bytes) -> socket.socket:
    """Send a request, or a part of one, and do not wait for an answer."""
    address = httpx.URL(url)
    assert address.port
    connection = socket.create_connection((address.host, address.port), timeout=60)
    connection.sendall(request)
    return connection


def test_callers_who_go_away_leave_nothing_behind() -> None:
    """In an upload, a long poll, a stream, a header, by closing and by reset."""
    with tempfile.TemporaryFile() as log:
        with serve_alone(log_to=log) as alone, httpx.Client(base_url=alone.url, timeout=60) as api:
            image = GOOD.partition(b"\r\n\r\n")[2].partition(b"\r\n--x")[0]
            job = api.post("/anonymize", files={"image": image}).raise_for_status().json()
            large = post(GOOD + bytes(1_000_000))
            before = open_files(alone.process.pid)
            left = []
            for number in range(CALLERS):
                for request in (
                    large[: 2_000 * number],
                    f"GET {job['links']['self']}?wait=5 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
                    f"GET {job['links']['events']} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
                    b"GET /healthz HTTP/1.1\r\nHos",
                ):
                    connection = begin(alone.url, request)
                    if number % 2:  # closing sends a reset instead of a goodbye
                        linger = b"\1\0\0\0\0\0\0\0"
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    left.append(connection)
            assert eventually(lambda: open_files(alone.process.pid) >= before + len(left))
            assert api.get(job["links"]["self"]).json()["status"] == "queued"
            for connection in left:
                connection.close()
            assert eventually(lambda: open_files(alone.process.pid) <= before + REDIS_CONNECTIONS)
            assert eventually(lambda: "face_anon_open_waits 0.0" in api.get("/metrics").text)
            assert api.get(job["links"]["self"]).json()["status"] == "queued"
            assert alone.redis.pubsub_numpat() == 1
            assert peak_kilobytes(alone.process.pid) < MAX_KILOBYTES
        log.seek(0)
        assert b"Traceback" not in (lines := log.read()), lines[-5_000:].decode()
