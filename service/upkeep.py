"""Lets the service look after the jobs as workers do, so that it is done where no worker is alive."""

import asyncio
import logging

from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from jobs.maintenance import TICK_SECONDS, Maintenance
from jobs.store import JobStore

log = logging.getLogger("face_anon.service")


async def look_after_jobs(store: JobStore) -> None:
    """Put the jobs of dead workers back, and end those that nobody will do, until cancelled."""
    maintenance = Maintenance(store)
    while True:
        await asyncio.sleep(TICK_SECONDS)
        try:
            await run_in_threadpool(maintenance.tick)
        except RedisError:
            log.debug("the jobs cannot be looked after: Redis does not answer")
        except Exception:
            log.exception("the jobs could not be looked after")
