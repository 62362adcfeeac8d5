"""`face-anon service --processes`: several processes on one port, which are one service to their callers."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import Alone, alive, eventually, serve_alone
from prometheus_client.parser import text_string_to_metric_families
from test_keys import FILES, FORM


@pytest.fixture(scope="module")
def three() -> Iterator[Alone]:
    """Run a service of three processes."""
    with serve_alone(processes=3) as running:
        yield running


def servers(running: Alone) -> list[int]:
    """Return the processes that answer requests."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def counted(running: Alone, name: str) -> float:
    """Return the sum of a metric."""
    text = httpx.get(f"{running.url}/metrics", timeout=30).text
    families = text_string_to_metric_families(text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def test_what_one_takes_all_know(three: Alone) -> None:
    """A job, its idempotency key and the numbers of all requests are the same whichever process answers."""
    assert eventually(lambda: len(servers(three)) == 3)
    before = counted(three, "face_anon_http_requests_total")

    def submit(_number: int) -> str:
        headers = {"Idempotency-Key": "the same"}
        answer = httpx.post(f"{three.url}/anonymize", files=FILES, data=FORM, headers=headers, timeout=30)
        link: str = answer.json()["links"]["self"]
        return link

    with ThreadPoolExecutor(8) as threads:
        (link,) = set(threads.map(submit, range(24)))
    assert {httpx.get(three.url + link, timeout=30).status_code for _ in range(24)} == {200}
    assert counted(three, "face_anon_http_requests_total") - before == 49  # and the first look at the numbers


def test_one_that_is_killed_is_replaced(three: Alone) -> None:
    """The others answer meanwhile, and what it had in hand is no more in the numbers."""
    victim = servers(three)[0]
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: not alive(victim))
    assert eventually(lambda: len(servers(three)) == 3)
    with httpx.Client(base_url=three.url, transport=httpx.HTTPTransport(retries=3), timeout=30) as api:
        assert {api.get("/healthz").status_code for _ in range(24)} == {200}
    assert eventually(lambda: counted(three, "face_anon_open_waits") == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_is_left_when_the_first_ends(number: signal.Signals) -> None:
    """Long polls are let go at once, and answered."""
    with serve_alone(processes=2) as running:
        job = httpx.post(f"{running.url}/anonymize", files=FILES, data=FORM, timeout=30).json()
        pids = servers(running)
        with ThreadPoolExecutor(1) as threads:
            url = running.url + job["links"]["self"]
            waiting = threads.submit(httpx.get, url, params={"wait": 60}, timeout=90)
            assert eventually(lambda: counted(running, "face_anon_open_waits") == 1)
            running.process.send_signal(number)
            assert waiting.result(30).json()["status"] == "queued"
        assert eventually(lambda: not any(map(alive, pids)))
        if number is signal.SIGKILL:
            running.process.returncode = 0  # as `serve_alone` expects it
