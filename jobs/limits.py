"""What callers may take: places in the queue, unfinished jobs a key, requests a second. Counted in Redis, in
one step each, so that any number of service processes share the limits. `jobs.store` and `service` ask.

Under `face-anon:`:
- `reserved` sorted set: jobs that are on their way into the queue, by when the reservation lapses
- `unfinished:{owner}` sorted set: the unfinished jobs of a key, by when they lapse; without a name, of
  callers without a key
- `bucket:{digest}` hash: a caller's token bucket
"""

import hashlib

from redis import Redis
from redis.client import Pipeline

from jobs.contract import JobRequest

RESERVED_SECONDS = 60
"""How long a submission may take; where it breaks off, its place is free again after that."""

# KEYS: queue, reserved, unfinished; ARGV: job, seconds, limit of the queue, limit of the owner (0: none).
# Returns 0, or which limit is reached.
_RESERVE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('LLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then return 1 end
if tonumber(ARGV[4]) > 0 and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then return 2 end
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  redis.call('ZADD', key, now + ARGV[2], ARGV[1])
  if redis.call('TTL', key) < tonumber(ARGV[2]) then redis.call('EXPIRE', key, ARGV[2]) end
end
return 0
"""

# A token bucket. KEYS: bucket; ARGV: tokens a second, most tokens. Returns 0 and takes a token, or the
# milliseconds until there is one.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local rate, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(most, (tonumber(bucket[1]) or most) + rate * (now - (tonumber(bucket[2]) or now)))
if tokens < 1 then return math.ceil((1 - tokens) / rate * 1000) end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - 1), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(most / rate * 1000) + 1000)
return 0
"""


class QueueFullError(Exception):
    """As many jobs wait for a worker as may."""


class TooManyJobsError(Exception):
    """The owner of a job has as many unfinished ones as it may."""


class Places:
    """The places for jobs in one Redis."""

    def __init__(self, redis: Redis, queue_key: str) -> None:
        """Count the jobs of the list `queue_key` as waiting."""
        self._redis = redis
        self._queue_key = queue_key
        self._reserve = redis.register_script(_RESERVE)

    def reserve(self, request: JobRequest, *, max_queued: int, max_owned: int) -> None:
        """Hold a place for a job; raises `QueueFullError` or `TooManyJobsError` where none is left.

        `max_owned` of 0 is no limit; callers without a key have none.
        """
        limit_of_owner = max_owned if request.owner is not None else 0
        reached = self._reserve(
            keys=[self._queue_key, _RESERVED, unfinished_key(request.owner)],
            args=[request.id, RESERVED_SECONDS, max_queued, limit_of_owner],
        )
        if reached == 1:
            raise QueueFullError(f"{max_queued} jobs are waiting, the limit; try again later")
        if reached:
            raise TooManyJobsError(
                f"this API key has {max_owned} unfinished jobs, its limit; try again later"
            )

    def release(self, request: JobRequest) -> None:
        """Give a place back that is not needed."""
        self._redis.zrem(_RESERVED, request.id)
        self._redis.zrem(unfinished_key(request.owner), request.id)


def occupy(pipeline: Pipeline, request: JobRequest, until: float, seconds: int) -> None:
    """Turn a reservation into a job's place, at the latest until a Unix time, in `seconds`."""
    pipeline.zrem(_RESERVED, request.id)
    pipeline.zadd(unfinished_key(request.owner), {request.id: until})
    pipeline.expire(unfinished_key(request.owner), seconds)


class RequestRate:
    """How many requests a second each caller may send, and how many at once after a pause."""

    def __init__(self, redis: Redis, per_second: float, burst: int) -> None:
        """Allow each caller `per_second` requests on average, `burst` at once."""
        self._take = redis.register_script(_TAKE)
        self._per_second = per_second
        self._burst = burst

    def seconds_to_wait(self, caller: str) -> float:
        """Count a request; returns 0 where it is within the limit, else after how long the next one is."""
        digest = hashlib.sha256(caller.encode()).hexdigest()  # the caller may be an address
        milliseconds: int = self._take(
            keys=[f"face-anon:bucket:{digest}"], args=[self._per_second, self._burst]
        )
        return milliseconds / 1000


_RESERVED = "face-anon:reserved"


def unfinished_key(owner: str | None) -> str:
    """Return the key of the unfinished jobs of an owner."""
    return f"face-anon:unfinished:{owner or ''}"
