"""RQ's worker with several places: it leases as many jobs at a time from the one queue and runs each in a
thread, renews the leases, and stops without losing one. `worker.main` starts it; it calls `worker.run`.
"""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty

from jobs.maintenance import Maintenance
from jobs.store import LEASE_SECONDS, JobStore, deaths_of

log = logging.getLogger("face_anon.worker")

HEARTBEAT_SECONDS = 4
WORKER_SECONDS = 20
"""RQ forgets a worker that was not heard of for a minute more than this."""


class _NoAlarm(BaseDeathPenalty):
    """No alarm: a job looks at its time limit at each denoising step (`worker.run`)."""

    def setup_death_penalty(self) -> None:
        """Set nothing."""

    def cancel_death_penalty(self) -> None:
        """Cancel nothing."""


class LeasingWorker(SimpleWorker):
    """One RQ worker that runs up to `places` jobs at a time in threads of this process."""

    death_penalty_class = _NoAlarm
    log_result_lifespan = False

    def __init__(self, redis: Redis, name: str, places: int) -> None:
        """Work on `redis`, a patient client: what a place says to Redis waits until it is back."""
        store = JobStore(redis)
        super().__init__(
            [store.queue],
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            exception_handlers=[Maintenance(store).end_after_last_try],
            worker_ttl=WORKER_SECONDS,
            log_job_description=False,
        )
        self._queue = store.queue
        self._places = places

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002  RQ's signature
        """Return the seconds after which a job without a sign of life is queued again."""
        return LEASE_SECONDS

    def lease_jobs(self, stopping: Callable[[], bool]) -> None:
        """Take jobs and run them until `stopping`, and return when the last one has ended.

        While a job runs that a worker has died of, perhaps, no other is taken: of the jobs that a dead worker
        had in hand each runs again without the others, so that the culprit alone takes another down.
        """
        self.register_birth()  # type: ignore[no-untyped-call]
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._places, thread_name_prefix="place") as threads:
            while not stopping():
                if len(running) == self._places:
                    running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED).not_done
                    continue
                job = self._take()
                if job is None:
                    continue
                suspect = deaths_of(job) > 0
                execution = self.prepare_execution(job)
                if stopping():
                    self._give_back(job, execution)
                    break
                running = {future for future in running if not future.done()}
                future = threads.submit(self._run, job, execution)
                if suspect:
                    wait([future])
                else:
                    running.add(future)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:  # noqa: ARG002
        """Note the time; RQ's would bring a job back, half, that another worker has ended in the meantime."""
        job.ended_at = datetime.now(UTC)

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: StartedJobRegistry, execution: Execution
    ) -> None:
        """Let RQ forget the job, if it has not: another worker may have had it too, and ended it."""
        if self.connection.exists(job.key):
            super().handle_job_success(job, queue, started_job_registry, execution)
            return
        with self.connection.pipeline(transaction=True) as pipeline:
            self.cleanup_execution(job, pipeline, execution)
            pipeline.execute()

    def keep_alive(self) -> None:
        """Renew the leases on the jobs in hand, and the sign of life of this worker."""
        for execution in list(self.executions.values()):
            self.maintain_heartbeats(execution.job, execution)
        if self.birth_date:  # RQ takes a worker that is heard of before its birth for another of its name
            self.heartbeat()

    def _take(self) -> Job | None:
        try:
            taken = Queue.dequeue_any([self._queue], 1, self.connection, serializer=JSONSerializer)
        except DequeueTimeout:
            return None
        return taken[0] if taken else None

    def _run(self, job: Job, execution: Execution) -> None:
        try:
            self.perform_job(job, self._queue, execution)
        except RedisError:  # an answer that no patience helps against: its lease will run out
            log.exception("the end of job %s could not be noted", job.id)
        finally:
            self.executions.pop(execution.id, None)

    def _give_back(self, job: Job, execution: Execution) -> None:
        with self.connection.pipeline(transaction=True) as pipeline:
            self.cleanup_execution(job, pipeline, execution)
            pipeline.lrem(self._queue.intermediate_queue_key, 1, job.id)
            self._queue.push_job_id(job.id, pipeline=pipeline, at_front=True)
            pipeline.execute()
