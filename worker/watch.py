"""Keeps an eye on the jobs that a process runs: hears from Redis which of them a caller has ended, and tells
Redis how far they are. One thread does it for all places, so that no denoising step waits for Redis.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from jobs.contract import Progress
from jobs.store import ENDS, JobStore

log = logging.getLogger("face_anon.worker")

REPORT_SECONDS = 0.25
RECONNECT_SECONDS = 0.5


class Watched:
    """A job under way: written by the place that runs it, and read by `Watch`, or the reverse."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        """How far the job is, by the place; None where that has been told."""
        self.reached: Progress | None = None
        """The same, told or not."""
        self.ended = False
        """Whether the job has ended elsewhere: a caller canceled or deleted it, or another worker did it."""


class Watch:
    """The jobs that this process runs."""

    def __init__(self, redis: Redis) -> None:
        """Use `redis`, an impatient client; nothing is heard or told once `listen` runs in a thread."""
        self._redis = redis
        self._store = JobStore(redis)
        self._watched: dict[str, Watched] = {}

    @contextmanager
    def job(self, job_id: str) -> Iterator[Watched]:
        """Watch a job until the block ends."""
        watched = self._watched[job_id] = Watched()
        try:
            yield watched
        finally:
            del self._watched[job_id]

    def listen(self, stopping: threading.Event) -> None:
        """Hear and tell until `stopping` is set. A lost connection is made again."""
        away = False
        while not stopping.is_set():
            try:
                with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]
                    pubsub.subscribe(ENDS)
                    while not stopping.is_set():
                        self._hear(pubsub)
                        self._tell()
                        if away:
                            log.warning("Redis is back")
                        away = False
            except RedisError as error:
                if not away:
                    log.warning("Redis is away, the jobs in hand go on: %s", error)
                away = True
                stopping.wait(RECONNECT_SECONDS)

    def _hear(self, pubsub: PubSub) -> None:
        """Handle what comes in until it is time to tell again."""
        until = time.monotonic() + REPORT_SECONDS
        while (left := until - time.monotonic()) > 0:
            message = pubsub.get_message(timeout=left)
            if message is None:
                continue
            if message["type"] == "message":
                ended = self._watched.get(message["data"].decode())
                if ended:
                    ended.ended = True
            else:  # (re)subscribed: something may have been missed
                for job_id, watched in list(self._watched.items()):
                    watched.ended |= not self._store.is_wanted(job_id)

    def _tell(self) -> None:
        reached: dict[str, Progress] = {}
        for job_id, watched in list(self._watched.items()):
            if watched.progress:
                reached[job_id], watched.progress = watched.progress, None
        if not reached:
            return
        for job_id in self._store.report_all(reached):
            if job_id in self._watched:
                self._watched[job_id].ended = True
