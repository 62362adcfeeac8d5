"""Jobs in an event loop, without a thread for each: one Redis connection a process listens for the changes of
all of them and wakes whoever waits, and a few read them, for polls are most of what a service is asked.

`jobs.store` publishes a message at each change; `service` waits here and reads the job again when woken.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from jobs.store import CHANGES, VIEW, JobView, view_keys, view_of

log = logging.getLogger("face_anon.service")

RECONNECT_SECONDS = 0.5
HEALTH_SECONDS = 10
READERS = 8
"""Connections that read jobs, at most; each is made when it is needed."""


class Changes:
    """What waits for changes of jobs in one event loop, and reads them there."""

    def __init__(self, redis_url: str) -> None:
        """Listen at `redis_url`, once `listen` runs, and read there."""
        self._redis = Redis.from_url(
            redis_url, socket_connect_timeout=2, health_check_interval=HEALTH_SECONDS
        )
        self._reader = Redis.from_pool(
            BlockingConnectionPool.from_url(
                redis_url,
                max_connections=READERS,
                timeout=None,
                retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
                socket_connect_timeout=2,
                health_check_interval=HEALTH_SECONDS,
            )
        )
        self._view = self._reader.register_script(VIEW)
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.ended = False
        """Whether the process is about to stop, so that nobody should wait any more."""

    @property
    def watchers(self) -> int:
        """How many wait now, counted once for each topic."""
        return sum(len(events) for events in self._watchers.values())

    @contextlib.contextmanager
    def watch(self, *topics: str) -> Iterator[asyncio.Event]:
        """Set the event at each change of a job, by id, or of `QUEUE_TOPIC`, until the block ends.

        Whoever clears the event before reading the job misses nothing. It is also set where changes may have
        been missed, and where the process is about to stop.
        """
        changed = asyncio.Event()
        for topic in topics:
            self._watchers[topic].add(changed)
        try:
            yield changed
        finally:
            for topic in topics:
                self._watchers[topic].discard(changed)
                if not self._watchers[topic]:
                    del self._watchers[topic]

    async def view(self, job_id: str) -> JobView | None:
        """Return the job as it stands; None where there is none, or none any more.

        Raises redis-py's `RedisError` where Redis does not answer.
        """
        return view_of(await self._view(keys=view_keys(job_id), args=[job_id]))

    async def listen(self) -> None:
        """Wake watchers until cancelled. A lost connection is made again."""
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.psubscribe(f"{CHANGES}*")
                    while True:
                        message = await pubsub.get_message(timeout=HEALTH_SECONDS)
                        if message is None:
                            continue
                        if message["type"] == "pmessage":
                            self._wake(message["channel"].decode().removeprefix(CHANGES))
                        else:  # (re)subscribed: something may have changed before
                            self._wake_all()
            except (RedisError, OSError) as error:
                log.warning("changes of jobs are not heard: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    def end(self) -> None:
        """Let everybody who waits go, as the process is about to stop."""
        self.ended = True
        self._wake_all()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._reader.aclose()

    def _wake(self, topic: str) -> None:
        for changed in self._watchers.get(topic, ()):
            changed.set()

    def _wake_all(self) -> None:
        for topic in self._watchers:
            self._wake(topic)
