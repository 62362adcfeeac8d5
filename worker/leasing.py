"""RQ's worker, made fit for jobs that run in its own process: it says that it lives while a job runs, and a
dead worker's job goes back to the queue after a short lease. `worker.main` starts it; it calls `worker.run`.
"""

import threading
from types import FrameType

from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import UnixSignalDeathPenalty

from jobs.store import LEASE_SECONDS
from model.errors import StoppedError

HEARTBEAT_SECONDS = 4
MAINTENANCE_SECONDS = 5


class TimeLimitError(StoppedError):
    """A job ran for longer than it may."""


class TimeLimit(UnixSignalDeathPenalty):
    """RQ's alarm, as a stop of the run: any other exception would be taken for a face that failed."""

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's
        """Raise in the main thread, wherever the job is."""
        raise TimeLimitError(f"the job ran for longer than {self._timeout} seconds, the limit")


class LeasingWorker(SimpleWorker):
    """A `SimpleWorker` that renews a short lease on its job, where RQ's holds it for the time limit."""

    death_penalty_class = TimeLimit

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002  RQ's signature
        """Return the seconds after which a job without a sign of life is queued again."""
        return LEASE_SECONDS

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the job in this process, while a thread renews its lease."""
        execution = self.prepare_execution(job)
        ended = threading.Event()
        heart = threading.Thread(
            target=self._keep_alive, args=(job, execution, ended), name=f"lease {job.id}", daemon=True
        )
        heart.start()
        try:
            self.perform_job(job, queue, execution)
        finally:
            ended.set()
            heart.join()
        self.set_state("idle")

    def _keep_alive(self, job: Job, execution: Execution, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                self.maintain_heartbeats(job, execution)
            except RedisError as error:  # the next beat tries again; the lease outlasts a few
                self.log.warning("could not renew the lease on job %s: %s", job.id, error)
