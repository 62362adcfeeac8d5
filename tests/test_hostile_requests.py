"""Requests that abuse HTTP and multipart, byte by byte, against a service without a worker: each ends in a
documented answer or a closed connection, costs little, and leaves the service well.
"""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pytest
from conftest import Alone
from hostile_requests import Request, hostile_requests
from test_hostile import MAX_KILOBYTES, MAX_SECONDS, cpu_seconds, peak_kilobytes

REQUESTS = list(hostile_requests())


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """Open a connection to the service."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    assert port
    with socket.create_connection((host, port), timeout=60) as connection:
        yield connection


def ending_of(connection: socket.socket) -> tuple[int, str]:
    """Return the status of the answer and its code: of a problem, or the status of a job."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        body = answer.read()
    except (http.client.HTTPException, ConnectionError):
        return 0, "closed"
    kind = answer.getheader("content-type", "")
    if kind == "application/problem+json":
        problem = json.loads(body)
        assert problem["status"] == answer.status
        return answer.status, problem["code"]
    if answer.status == HTTPStatus.ACCEPTED:
        return answer.status, json.loads(body)["status"]
    return answer.status, str(answer.status)


@pytest.mark.parametrize("request_sent", REQUESTS, ids=lambda request: request.name)
def test_a_hostile_request_ends_in_a_documented_answer(
    queue_only: httpx.Client, alone: Alone, request_sent: Request
) -> None:
    """A problem, a queued job or a closed connection, as the request says; never a 500, never a hanging."""
    begun = cpu_seconds(alone.process.pid)
    with connected(alone.url) as connection:
        with contextlib.suppress(ConnectionError):  # the service may answer before it has read all
            connection.sendall(request_sent.content)
            if request_sent.leaves:
                connection.shutdown(socket.SHUT_WR)
        status, code = ending_of(connection)
    assert code in request_sent.ends, (status, code)
    assert status < HTTPStatus.INTERNAL_SERVER_ERROR
    assert cpu_seconds(alone.process.pid) - begun < MAX_SECONDS
    assert peak_kilobytes(alone.process.pid) < MAX_KILOBYTES
    assert queue_only.get("/healthz").status_code == 200
    assert alone.store.queued() == (code == "queued")
