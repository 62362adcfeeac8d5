"""Puts the jobs of dead workers back into the queue, and ends those that nobody will do any more.

Whoever lives does it: each supervisor, each worker, and the service, so that it is done where no worker is
alive. RQ keeps the executions and counts the retries; this says when a worker is dead, and what a caller is
told.
"""

import logging
import time
from types import TracebackType

from rq.exceptions import NoSuchJobError
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import as_text
from rq.worker_registration import clean_worker_registry

from jobs.contract import Problem
from jobs.store import QUEUE_NAME, JobStore

log = logging.getLogger("face_anon.jobs")

TICK_SECONDS = 1
"""How often `Maintenance.tick` is best called."""

STUCK_SECONDS = 1
"""How long a worker may take between taking a job from the queue and saying that it runs it."""

RENEWED_SECONDS = 8
"""Within which a worker renews its leases when Redis is back: two heartbeats."""

LONG_AGO = 1.0

POISONED = Problem(
    title="The job was given up",
    detail="Each worker that ran this job died of it, or of a job beside it; it is not tried again.",
    code="poisoned",
    retryable=False,
)
NOT_STARTED = Problem(
    title="The job was not begun in time",
    detail="No worker was free for this job within the time that it may wait.",
    code="start_deadline",
    retryable=True,
)


class Maintenance:
    """Looks after the jobs in one store. Everything here raises redis-py's `RedisError`."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._queue = store.queue
        self._redis = store.queue.connection
        self._taken_since: dict[str, float] = {}
        # RQ's own lock is kept for 15 minutes by who dies while holding it.
        self._lock = self._redis.lock(f"rq:maintenance:{QUEUE_NAME}", timeout=10, sleep=0.05)

    def tick(self) -> None:
        """Do what is due, unless somebody else is just doing it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._leases_count():
                self._put_back_expired()
            self._queue.failed_job_registry.cleanup()
            clean_worker_registry(self._queue)
            self._put_back_stuck()
            for job_id in self._store.fail_unstarted(NOT_STARTED):
                log.warning("job %s was not begun in time", job_id)
        finally:
            self._lock.release()

    def abandon(self, worker: str) -> None:
        """Put the jobs of a dead worker back at once; one that has outlived no worker fails as poisonous."""
        executions = self._executions(worker)
        if executions:
            registry = self._queue.started_job_registry.key
            leases = {execution.composite_key: LONG_AGO for execution in executions}
            self._redis.zadd(registry, leases, xx=True)
            with self._lock:
                self._put_back_expired(LONG_AGO)
        self._forget_worker(worker)
        self._put_back_stuck()

    def put_back(self, worker: str) -> int:
        """Put the jobs of a worker back that stops before they are done; it does not count as a death.

        Returns how many.
        """
        executions = sorted(self._executions(worker), key=lambda execution: execution.created_at)
        job_ids = []
        for execution in reversed(executions):  # each goes before the others: the oldest comes first
            try:
                job = Job.fetch(execution.job_id, self._redis, JSONSerializer)
            except NoSuchJobError:
                continue
            with self._redis.pipeline(transaction=True) as pipeline:
                execution.delete(job, pipeline)
                pipeline.lrem(self._queue.intermediate_queue_key, 1, job.id)
                job.set_status(JobStatus.QUEUED, pipeline=pipeline)
                self._queue.push_job_id(job.id, pipeline=pipeline, at_front=True)
                pipeline.execute()
            job_ids.append(job.id)
        self._forget_worker(worker)
        self._store.requeued(job_ids)
        return len(job_ids)

    def end_after_last_try(
        self,
        job: Job,
        error_class: type[BaseException],  # noqa: ARG002  what RQ hands to exception handlers
        error: BaseException,  # noqa: ARG002
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Fail a job as poisonous whose run came to no end, where RQ will not try it again."""
        if not job.retries_left and self._store.fail(job.id, POISONED):
            log.error("job %s is given up: its workers died", job.id)

    def _leases_count(self) -> bool:
        """Tell whether workers have had the time to renew their leases since Redis was started."""
        return int(self._redis.info("server")["uptime_in_seconds"]) > RENEWED_SECONDS

    def _put_back_expired(self, expired_at: float | None = None) -> None:
        """Put back what nobody held the lease on any more at `expired_at`, now by default."""
        waiting: list[str] = []

        def after_death(
            job: Job,
            error_class: type[BaseException],
            error: BaseException,
            traceback: TracebackType | None,
        ) -> None:
            self.end_after_last_try(job, error_class, error, traceback)
            if job.retries_left:
                waiting.append(job.id)

        registry = self._queue.started_job_registry
        cutoff = expired_at or int(time.time())
        expired: list[bytes] = self._redis.zrange(registry.key, 0, cutoff, byscore=True)  # type: ignore[assignment]
        registry.cleanup(cutoff, exception_handlers=[after_death])
        # RQ lists an execution for a minute longer than it knows it, and trips over that when the job ends.
        with self._redis.pipeline(transaction=True) as pipeline:
            for key in map(bytes.decode, expired):
                execution = Execution.from_composite_key(key, self._redis)
                ExecutionRegistry(execution.job_id, self._redis).remove(execution, pipeline)
                pipeline.delete(execution.key)
            pipeline.execute()
        for job_id in waiting:
            log.warning("job %s waits again: its worker died", job_id)
        self._store.requeued(waiting)

    def _put_back_stuck(self) -> None:
        """Put jobs back whose worker died between taking them and saying that it runs them.

        RQ would wait for a minute. A worker that is only slow runs the job as well: it may be run twice.
        """
        taken = set(self._queue.intermediate_queue.get_job_ids())
        taken -= set(self._queue.started_job_registry.get_job_ids(cleanup=False))
        now = time.monotonic()
        self._taken_since = {job_id: self._taken_since.get(job_id, now) for job_id in taken}
        stuck = [job_id for job_id, since in self._taken_since.items() if now - since >= STUCK_SECONDS]
        for job_id in stuck:
            known = self._redis.exists(Job.key_for(job_id))
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.lrem(self._queue.intermediate_queue_key, 1, job_id)
                if known:
                    self._queue.push_job_id(job_id, pipeline=pipeline, at_front=True)
                pipeline.execute()
            del self._taken_since[job_id]
            log.warning("job %s waits again: its worker died before it began", job_id)

    def _executions(self, worker: str) -> list[Execution]:
        keys = self._redis.smembers(WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker))
        executions = []
        for key in keys:
            execution = Execution.from_composite_key(as_text(key), self._redis)
            execution.worker_name = worker
            fields = self._redis.hgetall(execution.key)
            if b"created_at" in fields:
                execution.restore(fields)
            executions.append(execution)
        return executions

    def _forget_worker(self, worker: str) -> None:
        self._store.withdraw(worker)
        self._redis.delete(f"rq:worker:{worker}", WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker))
