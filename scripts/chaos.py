"""Kills workers, supervisors and the server while jobs run, and checks that none is lost.

Real processes: two `face-anon worker` and a Valkey server with its append-only file on. Every job must end
with exactly one result, run again within 5 s of its worker's death where a supervisor lives and within 30 s
where that died as well, and a job that kills its worker each time must be given up after the second time.
Prints a table, and exits with 1 where a promise is broken. `make chaos` runs it, the tests a short form.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from jobs.contract import Faces, Idempotency, JobRequest, Kind, Limits, Parameters, PictureFormat, Status
from jobs.store import JobStore, connect
from scripts.chaos_world import (
    PATIENCE_SECONDS,
    PICTURES,
    ROOT,
    BrokenPromiseError,
    Events,
    Server,
    draw_pictures,
    limits_of,
    parent_of,
    until,
)

TINY = ROOT / "tests" / "reference" / "tiny-checkpoint"

WITH_SUPERVISOR_SECONDS = 5.0
WITHOUT_SUPERVISOR_SECONDS = 30.0
OFTEN = 1000
"""How many deaths a job may see here. Most kills come from outside and are no job's doing, so that the limit
of two would give up jobs by bad luck; it is checked with a job that is killed for each time it runs."""


@dataclass
class Killed:
    """A worker that was killed, and the jobs that it had in hand."""

    what: str
    at: float
    jobs: list[str]
    limit: float


class Chaos:
    """One run."""

    def __init__(self, server: Server, seed: int, slots: int) -> None:
        self.server = server
        self.random = random.Random(seed)  # noqa: S311  not for secrets
        self.redis = connect(server.url, patient=True)
        self.store = JobStore(self.redis)
        self.events = Events()
        self.slots = slots
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self.jobs: list[str] = []
        self.poison = ""
        self.kills: list[Killed] = []
        self.faults: Counter[str] = Counter()

    # Processes

    def start_supervisor(self) -> None:
        """Start a `face-anon worker`."""
        options = ["--checkpoint", str(TINY), "--slots", str(self.slots), "--grace-seconds", "2"]
        options += ["--stop-with-stdin"]  # so that nothing outlives this script
        command = [sys.executable, "-m", "cli.main", "worker", *options, "--redis-url", self.server.url]
        log = (self.server.folder / "workers.log").open("ab")
        with log:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=log)
        self.supervisors.append(process)

    def workers(self) -> dict[str, tuple[int, int]]:
        """Return the worker processes that are ready, by name: their own and their supervisor's pid."""
        ready = {}
        for key in self.redis.hkeys("face-anon:workers"):
            pid = self.redis.hget(f"rq:worker:{key.decode()}", "pid")
            if pid and (parent := parent_of(int(pid))):
                ready[key.decode()] = (int(pid), parent)
        return ready

    def both_ready(self) -> dict[str, tuple[int, int]]:
        """Wait for two workers: with one alone there would be nobody to take over in time."""

        def ready() -> dict[str, tuple[int, int]] | None:
            if ended := [one for one in self.supervisors if one.poll() is not None]:
                raise BrokenPromiseError(f"a supervisor ended with {ended[0].returncode}")
            workers = self.workers()
            return workers if len(workers) == len(self.supervisors) else None

        return until(ready)

    def in_hand(self, worker: str) -> list[str]:
        """Return the jobs that a worker has leased."""
        executions = self.redis.smembers(f"rq:worker:{worker}:executions")
        return [execution.decode().split(":")[0] for execution in executions]

    # Faults

    def kill_in_sampling(self) -> None:
        """Kill a worker with -9 that has jobs in hand."""
        worker, (pid, _) = self._busy()
        self._kill("worker, in sampling", worker, [pid], WITH_SUPERVISOR_SECONDS)

    def kill_before_start(self) -> None:
        """Kill a worker with -9 between taking a job from the queue and starting it."""
        workers = self.both_ready()
        worker, (pid, _) = self.random.choice(sorted(workers.items()))
        others = [other for other, _ in workers.values() if other != pid]
        for other in others:  # so that it is this one that takes the next job
            os.kill(other, signal.SIGSTOP)
        end = time.time() + 3
        taken: list[str] = []
        while not taken and time.time() < end:
            taken = [job.decode() for job in self.redis.lrange("rq:queue:face-anon:intermediate", 0, -1)]
        self._kill("worker, before start", worker, [pid], WITH_SUPERVISOR_SECONDS, taken)
        for other in others:
            os.kill(other, signal.SIGCONT)

    def kill_while_publishing(self) -> None:
        """Kill a worker with -9 while Redis keeps its outcomes waiting."""
        worker, (pid, _) = self._busy()
        self.redis.client_pause(600, all=False)
        time.sleep(0.5)
        self._kill("worker, while publishing", worker, [pid], WITH_SUPERVISOR_SECONDS)

    def kill_after_publishing(self) -> None:
        """Kill a worker with -9 right after an outcome was published, before RQ has noted the end."""
        workers = self.both_ready()
        with self.events.heard:
            before = sum(map(len, self.events.ended.values()))
            self.events.heard.wait_for(lambda: sum(map(len, self.events.ended.values())) > before, timeout=5)
        worker, (pid, _) = self.random.choice(sorted(workers.items()))
        self._kill("worker, after publishing", worker, [pid], WITH_SUPERVISOR_SECONDS)

    def kill_with_supervisor(self) -> None:
        """Kill a worker and its supervisor with -9, and start another pair."""
        worker, (pid, parent) = self._busy()
        self._kill("worker and supervisor", worker, [parent, pid], WITHOUT_SUPERVISOR_SECONDS)
        self._replace(parent)

    def terminate_worker(self) -> None:
        """Send a worker SIGTERM."""
        worker, (pid, _) = self._busy()
        self.faults["SIGTERM to a worker"] += 1
        os.kill(pid, signal.SIGTERM)
        until(lambda: worker not in self.workers())

    def terminate_supervisor(self) -> None:
        """Send a supervisor SIGTERM, and soon again, and start another."""
        _, (_, parent) = self._busy()
        self.faults["SIGTERM to a supervisor, twice"] += 1
        for _ in range(2):
            os.kill(parent, signal.SIGTERM)
            time.sleep(0.3)
        self._replace(parent)

    def kill_server(self) -> None:
        """Kill the server with -9 and start it again on the same append-only file."""
        self.faults["server, kill -9 and restart"] += 1
        self.server.kill()
        time.sleep(self.random.uniform(0.2, 2))
        self.server.start()

    def kill_for_poison(self) -> None:
        """Kill whoever runs one job, each time it runs; it must not come a third time."""
        limits = limits_of(max_deaths=2)
        self.poison = self.submit(steps=1000, limits=limits)
        while not (job := self.store.read(self.poison)) or not job.status.final:
            if not (job and job.status is Status.RUNNING):
                time.sleep(0.02)
                continue
            for worker, (pid, _) in self.workers().items():
                if self.poison in self.in_hand(worker):
                    self._kill("worker, for one job", worker, [pid], WITH_SUPERVISOR_SECONDS)
                    until(lambda gone=worker: self.redis.exists(f"rq:worker:{gone}") == 0 or None)
        if not job.outcome or not job.outcome.error or job.outcome.error.code != "poisoned":
            raise BrokenPromiseError(f"the poisonous job ended as {job.status}")

    def _busy(self) -> tuple[str, tuple[int, int]]:
        def busy() -> tuple[str, tuple[int, int]] | None:
            workers = [item for item in self.both_ready().items() if self.in_hand(item[0])]
            if not workers and not self.store.queued():
                self.submit_some(1)
            return self.random.choice(sorted(workers)) if workers else None

        time.sleep(self.random.uniform(0, 0.3))
        return until(busy)

    def _kill(
        self, what: str, worker: str, pids: list[int], limit: float, taken: list[str] | None = None
    ) -> None:
        jobs = [*self.in_hand(worker), *(taken or [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills.append(Killed(what, time.time(), sorted(set(jobs)), limit))
        self.faults[what] += 1

    def stop(self) -> None:
        """Stop the supervisors, in order."""
        self.both_ready()
        for supervisor in self.supervisors:
            supervisor.terminate()
        for supervisor in self.supervisors:
            if supervisor.wait(PATIENCE_SECONDS) != 0:
                print(f"a supervisor ended with {supervisor.returncode}")

    def _replace(self, parent: int) -> None:
        for supervisor in [one for one in self.supervisors if one.pid == parent]:
            supervisor.wait(PATIENCE_SECONDS)
            self.supervisors.remove(supervisor)
        self.start_supervisor()

    # Jobs

    def submit(self, *, steps: int, limits: Limits, whole: bool = False) -> str:
        """Submit a job, as often as it takes until Redis has taken it."""
        request = JobRequest(
            id=uuid.uuid4().hex,
            kind=Kind.ANONYMIZE,
            parameters=Parameters(
                d=1.25,
                seed=self.random.randrange(2**63),
                steps=steps,
                guidance_scale=self.random.choice([0.0, 4.0]),
                faces=Faces.ALL if whole else Faces.ALIGNED,
                format=PictureFormat.PNG,
            ),
            reference=None,
            created_at=datetime.now(UTC),
            limits=limits,
            idempotency=Idempotency(key=uuid.uuid4().hex, fingerprint="-"),
        )
        picture = PICTURES[whole]
        return self.store.submit(
            request, {"image": picture}, waiting_seconds=7200, max_queued=1000, max_owned=0
        ).id

    def submit_some(self, count: int) -> None:
        """Submit jobs of all lengths, mostly aligned faces, some whole photos."""
        limits = limits_of(max_deaths=OFTEN)
        for index in range(count):
            steps = self.random.randint(2, 8)
            self.jobs.append(self.submit(steps=steps, limits=limits, whole=index % 8 == 7))  # noqa: PLR2004

    def run(self, count: int, faults: int) -> None:
        """Submit `count` jobs while `faults` of each kind in turn happen, and wait until all have ended."""
        for _ in range(2):
            self.start_supervisor()
        begun = time.time()
        self.both_ready()
        kinds = [
            self.kill_with_supervisor,
            self.kill_in_sampling,
            self.kill_before_start,
            self.kill_server,
            self.kill_while_publishing,
            self.terminate_worker,
            self.kill_for_poison,
            self.kill_after_publishing,
            self.terminate_supervisor,
        ]
        planned = [kinds[index % len(kinds)] for index in range(faults)]
        if faults > len(kinds):  # the short run goes through the kinds in order
            self.random.shuffle(planned)
        for index, fault in enumerate(planned):
            self.both_ready()
            due = count * (index + 1) // faults - len(self.jobs)
            submitting = threading.Thread(target=self.submit_some, args=(due,))
            submitting.start()
            print(f"{time.time() - begun:6.1f} s  {fault.__name__.replace('_', ' ')}", flush=True)
            fault()
            submitting.join()
        until(lambda: all(self.events.ended[job_id] or self._over(job_id) for job_id in self.jobs))
        until(lambda: not self.redis.zcard("rq:wip:face-anon") and not self.store.queued())

    def _over(self, job_id: str) -> bool:
        job = self.store.read(job_id)
        return job is None or job.status.final

    def check(self) -> Iterator[str]:
        """Yield what is broken when all has ended."""
        for job_id in self.jobs:
            job = self.store.read(job_id)
            if job is None or job.status is not Status.SUCCEEDED:
                yield f"job {job_id} is {job.status if job else 'lost'}: {job.outcome if job else ''}"
                continue
            picture = self.store.result(job_id)
            if not picture or Image.open(io.BytesIO(picture)).size[0] < 64:  # noqa: PLR2004
                yield f"job {job_id} has no picture"
            if len(self.events.ended[job_id]) > 1:
                yield f"job {job_id} has {len(self.events.ended[job_id])} results"
        tries = sum(self.poison in killed.jobs for killed in self.kills)
        if self.poison and tries != 2:  # noqa: PLR2004
            yield f"the poisonous job was tried {tries} times"
        leftovers = {
            "queue": self.redis.llen("rq:queue:face-anon"),
            "taken": self.redis.llen("rq:queue:face-anon:intermediate"),
            "running": self.redis.zcard("rq:wip:face-anon"),
            "uploads": len(list(self.redis.scan_iter("face-anon:upload:*", count=1000))),
        }
        for name, count in leftovers.items():
            if count:
                yield f"{count} left in {name}"

    def _next_start(self, job_id: str, after: float) -> float:
        """Return when a job was started or ended after a moment; infinity where it was not."""
        moments = [*self.events.started[job_id], *self.events.ended[job_id]]
        if job := self.store.read(job_id):  # what was said while the server was away was not heard
            moments += [job.started_at.timestamp()] if job.started_at else []
            moments += [job.outcome.finished_at.timestamp()] if job.outcome else []
        return min((moment for moment in moments if moment > after), default=float("inf"))

    def report(self, slack: float) -> list[str]:
        """Print the figures; returns the broken promises about time, which may take `slack` times as long."""
        broken = []
        back: defaultdict[str, list[float]] = defaultdict(list)
        again: defaultdict[str, list[float]] = defaultdict(list)
        for killed in self.kills:
            for job_id in killed.jobs:
                if any(moment < killed.at for moment in self.events.ended[job_id]):
                    continue
                queued = [moment for moment in self.events.queued[job_id] if moment > killed.at]
                back[killed.what] += [moment - killed.at for moment in queued[:1]]
                waited = self._next_start(job_id, killed.at) - killed.at
                again[killed.what].append(waited)
                if waited > killed.limit * slack:
                    broken.append(f"{killed.what}: a job ran again only after {waited:.1f} s")
        print("\nseconds, median and longest, after kill -9 until a job is back in the queue and runs again")
        print(f"{'fault':36} {'times':>5} {'jobs hit':>8} {'back':>13} {'again':>13} {'promised':>8}")
        for fault, count in sorted(self.faults.items()):
            print(f"{fault:36} {count:5}", end="")
            if fault in again:
                limit = next(killed.limit for killed in self.kills if killed.what == fault)
                figures = f"{_spread(back[fault])} {_spread(again[fault])}"
                print(f" {len(again[fault]):8} {figures} {limit:8.0f}", end="")
            print()
        starts = [len(self.events.started[job_id]) for job_id in self.jobs]
        print(f"\n{len(self.jobs)} jobs, {sum(starts)} starts heard of, at most {max(starts)} of one job")
        return broken


def _spread(seconds: list[float]) -> str:
    """Return the median and the longest."""
    if not seconds:
        return f"{'':13}"
    return f"{sorted(seconds)[len(seconds) // 2]:6.2f} {max(seconds):6.2f}"


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=36)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--slack", type=float, default=1.0, help="for machines that do much else")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    draw_pictures()
    begun = time.time()
    stopping = threading.Event()
    with tempfile.TemporaryDirectory(prefix="face-anon-chaos-") as folder:
        server = Server(Path(folder))
        server.start()
        chaos = Chaos(server, options.seed, options.slots)
        listening = threading.Thread(target=chaos.events.listen, args=(server.url, stopping), daemon=True)
        listening.start()
        broken: list[str] = []
        try:
            chaos.run(options.jobs, options.faults)
            broken += chaos.report(options.slack)
        except BrokenPromiseError as error:
            broken.append(str(error))
        broken += chaos.check()
        stopping.set()
        chaos.stop()
        if broken:
            print((server.folder / "workers.log").read_text()[-5000:])
        if server.running:
            server.running.stop()
    print(f"{time.time() - begun:.0f} s")
    for promise in broken:
        print(f"BROKEN: {promise}")
    print("every job ended with exactly one result" if not broken else f"{len(broken)} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
