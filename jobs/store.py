"""Where jobs lie in Redis: the one place that knows the keys. The service submits and reads through it, the
worker fetches, reports and publishes.

Under `face-anon:`:
- `job:{id}` hash: `request`, `started_at`, `progress` and `outcome`, JSON each
- `upload:{id}:{name}`, `result:{id}`: the bytes of pictures; every one of them expires
- `idempotency:{digest}`: the id of the job that a caller's key made, for as long as there is the job
- `workers` hash: the model and the places of each live worker; a field expires unless its worker renews it
- `model` string: the model that was announced last; its defaults hold while workers restart
- `metrics` hash: each live worker's Prometheus text, expiring as its field in `workers` does
- `durations` list: how many milliseconds the latest jobs took
- `reserved`, `unfinished:{owner}`, `bucket:{digest}`: see `jobs.limits`
- `start-deadlines` sorted set: until when each job that has not been started must be
- `changes:{id}` channel: a message at each change of a job, for `jobs.changes`
- `ends` channel: the id of each job that a caller ended, for the worker that may be running it

RQ owns the queue and the job's execution under `rq:`; of a job it knows only the id. `jobs.maintenance` puts
the jobs of dead workers back.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.client import Pipeline
from redis.exceptions import WatchError
from redis.retry import Retry as RedisRetry
from rq import Queue, Retry
from rq.executions import ExecutionRegistry
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer

from jobs.contract import (
    UPLOADS,
    Announcement,
    Defaults,
    Idempotency,
    JobRequest,
    Model,
    Outcome,
    Problem,
    Progress,
    Status,
    Timings,
)
from jobs.limits import Places, RequestRate, occupy, unfinished_key

QUEUE_NAME = "face-anon"
RUN_JOB = "worker.run.run_job"
"""The function that RQ calls with a job's id, by name: the service does not import the worker."""

RATED_JOBS = 20
"""From how many of the latest jobs the rate of work is taken, where they ended within the last hour."""

REMEMBERED_SECONDS = 30 * 24 * 3600
"""For how long the last worker's model is known after it has gone."""

LEASE_SECONDS = 15
"""How long a worker counts as alive after it was last heard of."""

CHANGES = "face-anon:changes:"
"""What the channels of jobs begin with; the rest is the job's id, or `QUEUE_TOPIC`."""
QUEUE_TOPIC = "queue"
"""Says that a job left the queue, so that the others moved up."""
ENDS = "face-anon:ends"
"""The channel that says which job a caller has canceled or deleted."""

# Sets a field of a job that exists and has not ended, and tells who watches; returns 1 if it did.
# KEYS: job; ARGV: field, value, channel
_CHANGE = """
if redis.call('HEXISTS', KEYS[1], 'request') == 0 or redis.call('HEXISTS', KEYS[1], 'outcome') == 1 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
"""

VIEW = """
return {
  redis.call('HGETALL', KEYS[1]), redis.call('EXPIRETIME', KEYS[1]), redis.call('HGET', KEYS[2], 'status'),
  redis.call('LPOS', KEYS[3], ARGV[1]), redis.call('HVALS', KEYS[4]), redis.call('LRANGE', KEYS[5], 0, -1)
}
"""
"""The script that reads all that makes up an answer about a job: `view_of` understands what it returns.

KEYS: `view_keys`; ARGV: the job's id.
"""

# Publishes the outcome of a job that still exists and has none, and erases its uploads; returns 1 if it did.
# KEYS: job, result, idempotency (or job again), unfinished jobs of its owner, uploads...
# ARGV: outcome, seconds to keep it, picture ("" for none), seconds to keep that, channel, job's id, progress
_PUBLISH = """
redis.call('DEL', unpack(KEYS, 5))
redis.call('ZREM', KEYS[4], ARGV[6])
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[1], 'outcome', ARGV[1]) == 0 then
  return 0
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'progress', ARGV[7]) end
redis.call('PUBLISH', ARGV[5], 'outcome')
return 1
"""


@dataclass(frozen=True)
class JobRecord:
    """A job as it stands."""

    request: JobRequest
    status: Status
    started_at: datetime | None
    progress: Progress | None
    outcome: Outcome | None
    position: int | None
    """Place in the queue, 1 is next; None unless queued."""
    expires_at: datetime


@dataclass(frozen=True)
class JobView:
    """A job as its callers see it."""

    job: JobRecord
    models: list[Model]
    """The model of each live worker that is ready for jobs."""
    eta_seconds: float | None
    """After how long a queued job is likely to start; None while no rate is known."""


ViewReply = tuple[list[bytes], int, bytes | None, int | None, list[bytes], list[bytes]]


class Started(NamedTuple):
    """A job as a worker gets it."""

    request: JobRequest
    pictures: list[bytes] | None
    """In the order of `UPLOADS`; None where they have expired."""
    again: bool
    """Whether it had been started before."""


def deaths_of(job: Job) -> int:
    """Return how many workers have died while they ran a job."""
    return int(job.meta["retries"]) - (job.retries_left or 0)


def connect(redis_url: str, *, patient: bool = False) -> Redis:
    """Return a client that tries a lost connection again three times within a second, then raises.

    A `patient` one tries again, up to twice a second, until Redis is back.
    """
    retry = RedisRetry(ExponentialBackoff(cap=0.5, base=0.05), retries=-1 if patient else 3)
    return Redis.from_url(redis_url, retry=retry, socket_connect_timeout=2, health_check_interval=30)


class JobStore:
    """The jobs in one Redis. Raises redis-py's `RedisError` where Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        """Work on `redis`, a client that returns bytes."""
        self._redis = redis
        self._queue = Queue(QUEUE_NAME, connection=redis, serializer=JSONSerializer)
        self._places = Places(redis, self._queue.key)
        self._change = redis.register_script(_CHANGE)
        self._publish = redis.register_script(_PUBLISH)
        self._view = redis.register_script(VIEW)

    @property
    def queue(self) -> Queue:
        """The RQ queue that workers lease jobs from."""
        return self._queue

    # What the service calls

    def submit(
        self,
        request: JobRequest,
        pictures: Mapping[str, bytes],
        *,
        waiting_seconds: int,
        max_queued: int,
        max_owned: int,
    ) -> JobRequest:
        """Store the request and its pictures, by name, and queue it: all of it or nothing.

        Returns the request, or the earlier one with the same idempotency key where its job still exists.
        A job that has not ended after `waiting_seconds` is gone, with its uploads. Raises `QueueFullError`
        where `max_queued` jobs wait, and `TooManyJobsError` where the owner has `max_owned` unfinished ones
        (0: as many as it likes).
        """
        if request.idempotency and (earlier := self.earlier(request.idempotency)):
            return earlier
        self._places.reserve(request, max_queued=max_queued, max_owned=max_owned)
        submitted = self._submit(request, pictures, waiting_seconds)
        if submitted is not request:
            self._places.release(request)
        return submitted

    def _submit(self, request: JobRequest, pictures: Mapping[str, bytes], waiting_seconds: int) -> JobRequest:
        with self._redis.pipeline(transaction=True) as pipeline:
            while True:
                try:
                    if request.idempotency:
                        pipeline.watch(_idempotency_key(request.idempotency))  # type: ignore[no-untyped-call]
                        if earlier := self.earlier(request.idempotency):
                            return earlier
                        pipeline.multi()
                        pipeline.set(_idempotency_key(request.idempotency), request.id, ex=waiting_seconds)
                    self._enqueue(pipeline, request, pictures, waiting_seconds)
                    pipeline.execute()
                except WatchError:  # somebody else has just made the job: look again
                    continue
                return request

    def earlier(self, idempotency: Idempotency) -> JobRequest | None:
        """Return the request that was made with this key, where its job still exists."""
        job_id: bytes | None = self._redis.get(_idempotency_key(idempotency))  # type: ignore[assignment]
        request = self._redis.hget(_job_key(job_id.decode()), "request") if job_id else None
        return JobRequest.model_validate_json(request) if request else None

    def read(self, job_id: str) -> JobRecord | None:
        """Return the job as it stands; None where there is none, or none any more."""
        view = self.view(job_id)
        return view.job if view else None

    def view(self, job_id: str) -> JobView | None:
        """Return the job as it stands, with what its callers are told of the workers; None as in `read`."""
        return view_of(self._view(keys=view_keys(job_id), args=[job_id]))

    def result(self, job_id: str) -> bytes | None:
        """Return the finished picture; None where there is none, or none any more."""
        picture: bytes | None = self._redis.get(_result_key(job_id))  # type: ignore[assignment]
        return picture

    def cancel(self, job_id: str) -> None:
        """End a job as canceled and erase its uploads; a worker that runs it stops at its next step.

        Nothing happens to a job that has ended, or where there is none.
        """
        job = self.read(job_id)
        if job is None or job.status.final:
            return
        outcome = Outcome(status=Status.CANCELED, finished_at=datetime.now(UTC))
        if self.publish(job.request, outcome, None):
            self._forget_execution(job_id)

    def delete(self, job_id: str) -> bool:
        """Erase a job with everything that belongs to it, whatever its state; False where there is none.

        A worker that runs it stops at its next step, and can bring nothing of it back.
        """
        record = self._redis.hget(_job_key(job_id), "request")
        if record is None:
            return False
        request = JobRequest.model_validate_json(record)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(_job_key(job_id))
            pipeline.delete(
                _result_key(job_id), *(_upload_key(job_id, name) for name in UPLOADS[request.kind])
            )
            if request.idempotency:
                pipeline.delete(_idempotency_key(request.idempotency))
            pipeline.zrem(unfinished_key(request.owner), job_id)
            pipeline.publish(f"{CHANGES}{job_id}", "deleted")
            deleted, *_ = pipeline.execute()
        self._forget_execution(job_id)
        return bool(deleted)

    def queued(self) -> int:
        """Return how many jobs wait for a worker."""
        return self._redis.llen(self._queue.key)

    def oldest_queued(self) -> datetime | None:
        """Return when the job that is next was made; None where none waits."""
        next_id: bytes | None = self._redis.lindex(self._queue.key, 0)  # type: ignore[assignment]
        request = self._redis.hget(_job_key(next_id.decode()), "request") if next_id else None
        return JobRequest.model_validate_json(request).created_at if request else None

    def request_rate(self, per_second: float, burst: int) -> RequestRate:
        """Return a counter of callers' requests."""
        return RequestRate(self._redis, per_second, burst)

    def models(self) -> list[Model]:
        """Return the model of each live worker that is ready for jobs."""
        return [Announcement.model_validate_json(worker).model for worker in self._redis.hvals(_WORKERS)]

    def defaults(self) -> Defaults:
        """Return what a job is best made with where its request does not say.

        By a live worker's checkpoint; while none lives by the last one's; those published where none was.
        """
        models = self.models()
        if not models and (last := self._redis.get(_MODEL)):
            models = [Model.model_validate_json(last)]
        return models[0].defaults if models else Defaults()

    def worker_metrics(self) -> dict[str, bytes]:
        """Return each live worker's metrics as Prometheus text, by the worker's name."""
        metrics: dict[bytes, bytes] = self._redis.hgetall(_METRICS)  # type: ignore[assignment]
        return {worker.decode(): exposition for worker, exposition in metrics.items()}

    # What the worker calls

    def report_metrics(self, worker: str, exposition: bytes) -> None:
        """Let the service show a worker's metrics (Prometheus text); holds for `LEASE_SECONDS`."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(_METRICS, worker, exposition)
            pipeline.hexpire(_METRICS, LEASE_SECONDS, worker)
            pipeline.execute()

    def announce(self, worker: str, model: Model, places: int = 1) -> None:
        """Say that a worker is ready with a model for `places` jobs at a time; holds for `LEASE_SECONDS`."""
        announcement = Announcement(model=model, places=places)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(_WORKERS, worker, announcement.model_dump_json())
            pipeline.hexpire(_WORKERS, LEASE_SECONDS, worker)
            pipeline.set(_MODEL, model.model_dump_json(), ex=REMEMBERED_SECONDS)
            pipeline.execute()

    def withdraw(self, worker: str) -> None:
        """Say that a worker takes no more jobs."""
        self._redis.hdel(_WORKERS, worker)
        self._redis.hdel(_METRICS, worker)

    def start(self, job_id: str) -> Started | None:
        """Mark a job as started and return it with its pictures; None where it has ended or is gone."""
        fields = self._redis.hgetall(_job_key(job_id))
        if b"request" not in fields or b"outcome" in fields:
            return None
        request = JobRequest.model_validate_json(fields[b"request"])
        names = UPLOADS[request.kind]
        uploads: list[bytes | None] = self._redis.mget([_upload_key(job_id, name) for name in names])  # type: ignore[assignment]
        if not self._set(job_id, "started_at", datetime.now(UTC).isoformat()):
            return None
        self._redis.zrem(_START_DEADLINES, job_id)
        self._redis.publish(f"{CHANGES}{QUEUE_TOPIC}", job_id)
        pictures = [upload for upload in uploads if upload is not None]
        return Started(request, pictures if len(pictures) == len(names) else None, b"started_at" in fields)

    def report(self, job_id: str, progress: Progress) -> bool:
        """Let callers see how far a running job is; False where it was canceled or is gone."""
        return self._set(job_id, "progress", progress.model_dump_json())

    def report_all(self, progress: Mapping[str, Progress]) -> set[str]:
        """Report on several jobs at once, by id; returns those that were canceled or are gone."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id, reached in progress.items():
                arguments = ["progress", reached.model_dump_json(), f"{CHANGES}{job_id}"]
                self._change(keys=[_job_key(job_id)], args=arguments, client=pipeline)
            reported = pipeline.execute()
        return {job_id for job_id, wanted in zip(progress, reported, strict=True) if not wanted}

    def is_wanted(self, job_id: str) -> bool:
        """Tell whether a job is still to be done: False where it has ended, was canceled or is gone."""
        request, outcome = self._redis.hmget(_job_key(job_id), ["request", "outcome"])
        return request is not None and outcome is None

    def publish(
        self,
        request: JobRequest,
        outcome: Outcome,
        picture: bytes | None,
        progress: Progress | None = None,
    ) -> bool:
        """End a job, once, and erase its uploads; False where it had ended before or is gone.

        `progress` is how far it came, where that is not told yet.
        """
        uploads = [_upload_key(request.id, name) for name in UPLOADS[request.kind]]
        repeated = request.idempotency
        same_life = _idempotency_key(repeated) if repeated else _job_key(request.id)
        keys = [
            _job_key(request.id),
            _result_key(request.id),
            same_life,
            unfinished_key(request.owner),
            *uploads,
        ]
        arguments: list[str | bytes | int] = [
            outcome.model_dump_json(),
            request.limits.record_seconds,
            picture or b"",
            request.limits.result_seconds,
            f"{CHANGES}{request.id}",
            request.id,
            progress.model_dump_json() if progress else "",
        ]
        published = bool(self._publish(keys=keys, args=arguments))
        if published and outcome.status is Status.SUCCEEDED:
            self._rate(outcome.timings)
        return published

    # What jobs.maintenance calls

    def fail(self, job_id: str, problem: Problem) -> bool:
        """End a job that nobody runs as failed and erase its uploads; False where it has ended or is gone."""
        record = self._redis.hget(_job_key(job_id), "request")
        if record is None:
            return False
        outcome = Outcome(status=Status.FAILED, finished_at=datetime.now(UTC), error=problem)
        return self.publish(JobRequest.model_validate_json(record), outcome, None)

    def fail_unstarted(self, problem: Problem) -> list[str]:
        """End the jobs that should have been started by now as failed; returns their ids."""
        late: list[bytes] = self._redis.zrange(_START_DEADLINES, 0, int(time.time()), byscore=True)  # type: ignore[assignment]
        failed = []
        for job_id in map(bytes.decode, late):
            started = self._redis.hexists(_job_key(job_id), "started_at")
            if not started and self.fail(job_id, problem):
                failed.append(job_id)
            self._redis.zrem(_START_DEADLINES, job_id)
            if not started:
                self._forget_execution(job_id)
        return failed

    def requeued(self, job_ids: Iterable[str]) -> None:
        """Tell those who watch that these jobs wait again."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.publish(f"{CHANGES}{job_id}", "queued")
                pipeline.publish(f"{CHANGES}{QUEUE_TOPIC}", job_id)
            pipeline.execute()

    def _rate(self, timings: Timings) -> None:
        took = (timings.detect_ms or 0) + (timings.sample_ms or 0) + (timings.encode_ms or 0)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(_DURATIONS, took)
            pipeline.ltrim(_DURATIONS, 0, RATED_JOBS - 1)
            pipeline.expire(_DURATIONS, 3600)
            pipeline.execute()

    def _enqueue(
        self,
        pipeline: Pipeline,
        request: JobRequest,
        pictures: Mapping[str, bytes],
        waiting_seconds: int,
    ) -> None:
        pipeline.hset(_job_key(request.id), mapping={"request": request.model_dump_json()})
        pipeline.expire(_job_key(request.id), waiting_seconds)
        occupy(pipeline, request, time.time() + waiting_seconds, waiting_seconds)
        deadline = int(request.created_at.timestamp()) + request.limits.start_seconds
        pipeline.zadd(_START_DEADLINES, {request.id: deadline})
        pipeline.expire(_START_DEADLINES, waiting_seconds)
        for name, picture in pictures.items():
            pipeline.set(_upload_key(request.id, name), picture, ex=waiting_seconds)
        retries = request.limits.max_deaths - 1
        retry = Retry(max=retries, enqueue_at_front=True) if retries else None
        execution = Queue.prepare_data(
            RUN_JOB,
            args=(request.id,),
            job_id=request.id,
            description=f"{request.kind} {request.id}",
            timeout=request.limits.run_seconds,
            result_ttl=0,  # the outcome is in our own record
            failure_ttl=request.limits.record_seconds,
            retry=retry,  # RQ puts a dead worker's job back only while retries are left
            meta={"retries": retries},
        )
        self._queue.enqueue_many([execution], pipeline=pipeline)

    def _set(self, job_id: str, field: str, value: str) -> bool:
        return bool(self._change(keys=[_job_key(job_id)], args=[field, value, f"{CHANGES}{job_id}"]))

    def _forget_execution(self, job_id: str) -> None:
        """Take a job out of RQ's queue and erase what RQ keeps of it.

        Where a worker has it, RQ still counts on it: the worker stops at its next step, and RQ forgets the
        job as one that has ended.
        """
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lrem(self._queue.key, 1, job_id)
            pipeline.zrem(self._queue.failed_job_registry.key, job_id)
            pipeline.zrem(_START_DEADLINES, job_id)
            pipeline.publish(f"{CHANGES}{QUEUE_TOPIC}", job_id)
            pipeline.publish(ENDS, job_id)
            waited, failed, *_ = pipeline.execute()
        if waited or failed:
            result_key: str = Result.get_key(job_id)  # type: ignore[no-untyped-call]
            self._redis.delete(Job.key_for(job_id), result_key, ExecutionRegistry(job_id, self._redis).key)


_WORKERS = "face-anon:workers"
_MODEL = "face-anon:model"
_METRICS = "face-anon:metrics"
_DURATIONS = "face-anon:durations"
_START_DEADLINES = "face-anon:start-deadlines"


def view_keys(job_id: str) -> list[str]:
    """Return the keys that `VIEW` reads."""
    return [_job_key(job_id), Job.key_for(job_id), f"rq:queue:{QUEUE_NAME}", _WORKERS, _DURATIONS]


def view_of(reply: ViewReply) -> JobView | None:
    """Return the job that `VIEW` has read; None where there is none."""
    listed, expires_at, execution, index, workers, durations = reply
    fields = dict(zip(listed[::2], listed[1::2], strict=True))
    if b"request" not in fields:
        return None
    outcome = Outcome.model_validate_json(fields[b"outcome"]) if b"outcome" in fields else None
    status = outcome.status if outcome else _unfinished_status(execution)
    waits = status is Status.QUEUED  # perhaps again, after its worker died
    started_at = None if waits else fields.get(b"started_at")
    progress = None if waits else fields.get(b"progress")
    job = JobRecord(
        request=JobRequest.model_validate_json(fields[b"request"]),
        status=status,
        started_at=datetime.fromisoformat(started_at.decode()) if started_at else None,
        progress=Progress.model_validate_json(progress) if progress else None,
        outcome=outcome or (_worker_lost() if status is Status.FAILED else None),
        position=index + 1 if waits and index is not None else None,
        expires_at=datetime.fromtimestamp(expires_at, UTC),
    )
    announced = [Announcement.model_validate_json(worker) for worker in workers]
    places = sum(worker.places for worker in announced)
    eta_seconds = _eta_seconds(job.position, durations, places)
    return JobView(job, [worker.model for worker in announced], eta_seconds)


def _job_key(job_id: str) -> str:
    return f"face-anon:job:{job_id}"


def _upload_key(job_id: str, name: str) -> str:
    return f"face-anon:upload:{job_id}:{name}"


def _idempotency_key(idempotency: Idempotency) -> str:
    return f"face-anon:idempotency:{idempotency.key}"


def _result_key(job_id: str) -> str:
    return f"face-anon:result:{job_id}"


def _eta_seconds(position: int | None, durations: list[bytes], places: int) -> float | None:
    """Return when a job is likely to start.

    `position` jobs end before that, one of which is on average half done, shared by the live workers'
    places.
    """
    if not position or not durations or not places:
        return None
    mean_seconds: float = sum(map(int, durations)) / len(durations) / 1000
    return round((position - 0.5) * mean_seconds / places, 1)


def _unfinished_status(execution: bytes | None) -> Status:
    """Tell the state of a job without an outcome from what RQ says of its execution."""
    if execution in {b"queued", b"deferred", b"scheduled"}:
        return Status.QUEUED
    if execution == b"started":
        return Status.RUNNING
    return Status.FAILED


def _worker_lost() -> Outcome:
    return Outcome(
        status=Status.FAILED,
        finished_at=datetime.now(UTC),
        error=Problem(
            title="The job was lost",
            detail="The workers that ran this job died each time; it was not tried again.",
            code="worker_lost",
            retryable=True,
        ),
    )
