"""`face-anon serve` as a whole: real processes, real signals."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import (
    FACE_ANON,
    PHOTO,
    ROOT,
    Running,
    alive,
    eventually,
    start_serving,
    stop_serving,
    wait_for_end,
)
from redis import Redis


@pytest.fixture
def running() -> Iterator[Running]:
    """Start a service of this test's own."""
    running = start_serving()
    yield running
    if running.process.poll() is None:
        stop_serving(running)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_everything_it_started(running: Running, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process, with exit code 0."""
    children = running.children()
    assert set(children) == {"service", "worker", "embedded-redis", "valkey-server"}
    running.process.send_signal(number)
    assert running.process.wait(30) == 0
    assert not [name for name, pid in children.items() if alive(pid)]


def test_killed_with_9_it_leaves_no_orphan(running: Running) -> None:
    """The parts notice that what started them is gone, and stop; a worker within its time of grace."""
    children = running.children()
    running.process.kill()
    running.process.wait()
    assert eventually(lambda: not any(alive(pid) for pid in children.values()), 90)


def test_a_killed_worker_is_replaced_and_its_job_done(running: Running) -> None:
    """Kill -9 in the middle of a job: another worker does it, the caller polls on and gets the picture."""
    with httpx.Client(base_url=running.url, timeout=30) as api:
        files, data = {"image": PHOTO.read_bytes()}, {"steps": "200", "seed": "1"}
        job = api.post("/anonymize", files=files, data=data).json()
        assert eventually(lambda: (api.get(job["links"]["self"]).json()["progress"] or {}).get("step", 0) > 1)
        os.kill(running.children()["worker"], signal.SIGKILL)
        ended = wait_for_end(api, job)
        assert ended["status"] == "succeeded"
        assert api.get(ended["result"]["url"]).status_code == 200


def test_a_job_over_its_time_fails() -> None:
    """It ends with a code of its own, not with a covered face, and the worker does the next job."""
    running = start_serving(environment={"FACE_ANON_RUN_SECONDS": "4"})
    with httpx.Client(base_url=running.url, timeout=30) as api:
        files = {"image": PHOTO.read_bytes()}
        ended = wait_for_end(api, api.post("/anonymize", files=files, data={"steps": "1000"}).json())
        assert (ended["status"], ended["error"]["code"]) == ("failed", "time_limit")
        assert "longer than 4 seconds" in ended["error"]["detail"]
        short = {"steps": "1", "faces": "aligned"}
        following = api.post("/anonymize", files=files, data=short).json()
        assert wait_for_end(api, following)["status"] == "succeeded"
    assert stop_serving(running) == 0


def test_no_upload_stays_behind(running: Running) -> None:
    """When a job has ended, its upload is gone from Redis."""
    with httpx.Client(base_url=running.url, timeout=30) as api:
        job = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data={"steps": "1"}).json()
        wait_for_end(api, job)
    redis = Redis.from_url(running.redis_url())
    keys = [key.decode() for key in redis.keys("face-anon:*")]
    assert f"face-anon:result:{job['id']}" in keys
    assert not [key for key in keys if key.startswith("face-anon:upload:")]
    assert all(
        redis.ttl(key) > 0 for key in keys if not key.endswith((":workers", ":metrics"))
    )  # each field has its own
    redis.close()


def test_a_taken_port_is_said() -> None:
    """Exit code 1 and the address, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [*FACE_ANON, "serve", "--port", port], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr


def test_a_checkpoint_that_does_not_load_ends_it(tmp_path: Path) -> None:
    """Exit code 1 with the worker's sentence; no endless restart, no orphan."""
    result = subprocess.run(
        [*FACE_ANON, "serve", "--port", "0", "--checkpoint", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "unet: this part of the checkpoint is missing" in result.stderr
    assert "the worker cannot start" in result.stderr


def test_a_real_redis_is_used_where_one_is_given(running: Running) -> None:
    """With REDIS_URL no server is embedded, and two services share one queue."""
    second = start_serving(environment={"REDIS_URL": running.redis_url()})
    try:
        assert set(second.children()) == {"service", "worker"}
        with httpx.Client(timeout=30) as api:
            files = {"image": PHOTO.read_bytes()}
            job = api.post(f"{second.url}/anonymize", files=files, data={"steps": "1"}).json()
            assert api.get(f"{running.url}{job['links']['self']}").status_code == 200
    finally:
        assert stop_serving(second) == 0
