"""Bodies on their way in: how long one may take, how much all together may hold, and when they are let go."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from conftest import PHOTO, Alone, eventually, serve_alone
from test_keys import FILES, FORM

HEAD = (
    b"POST /anonymize HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 60000\r\n\r\n--x\r\n"
    b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
)


@pytest.fixture(scope="module")
def strict() -> Iterator[Alone]:
    """Run a service that takes uploads for two seconds, and 64 kB and a little of them at a time."""
    with serve_alone(upload_seconds=2, max_upload_bytes=10_000, max_uploading_bytes=1) as running:
        yield running


@contextlib.contextmanager
def half_sent(running: Alone, size: int) -> Iterator[socket.socket]:
    """Send the first part of an upload, and nothing more."""
    url = httpx.URL(running.url)
    with socket.create_connection((url.host, url.port or 0), 30) as connection:
        connection.sendall(HEAD + bytes(size))
        yield connection


def test_an_upload_that_trickles_is_given_up(strict: Alone) -> None:
    """A 408 problem after the time it may take, however often a byte comes; then the connection is closed."""
    with half_sent(strict, 10) as connection:
        sent = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not sent.wait(0.1):
                    connection.sendall(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        sent.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_too_slow"' in answer
    assert b"took more than 2 s" in answer


def test_uploads_together_have_a_limit(strict: Alone) -> None:
    """Beside a large one that is under way another is a 503, a small one is taken; when it is over, all."""
    with httpx.Client(base_url=strict.url, timeout=30) as api:
        large = {"image": bytes(50_000)}
        with half_sent(strict, 50_000):
            assert eventually(lambda: api.post("/anonymize", files=large).status_code == 503, 2)
            refused = api.post("/anonymize", files=large)
            assert refused.json()["code"] == "too_many_uploads"
            assert int(refused.headers["retry-after"]) >= 1
            assert api.post("/anonymize", files={"image": b"small"}).status_code == 415
        assert eventually(lambda: api.post("/anonymize", files=large).status_code == 413)


def test_who_waits_for_the_end_does_not_hold_the_upload() -> None:
    """Three long polls with an upload each, where one upload is as much as is held at a time."""
    size = len(PHOTO.read_bytes())
    with serve_alone(max_upload_bytes=size, max_uploading_bytes=1) as running:
        begun = []
        with httpx.Client(base_url=running.url, timeout=30) as api:

            def wait_for_the_end() -> None:
                begun.append(api.post("/anonymize", files=FILES, data=FORM, params={"wait": 5}).status_code)

            threads = [threading.Thread(target=wait_for_the_end) for _ in range(3)]
            for number, thread in enumerate(threads, 1):
                thread.start()
                assert eventually(lambda number=number: running.store.queued() == number)  # type: ignore[misc]
            for thread in threads:
                thread.join()
        assert begun == [202] * 3
