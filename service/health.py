"""Whether the process lives, and whether it is ready for jobs; probes need no key."""

from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel, Field
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.store import JobStore
from service.job_endpoints import POLL_SECONDS
from service.problems import ProblemError, describe


class Health(BaseModel):
    """The process lives, or is ready for jobs."""

    status: str = Field(examples=["ok"])


def health_routes(store: JobStore) -> APIRouter:
    """Return the endpoints of probes."""
    routes = APIRouter()

    @routes.get("/healthz", summary="The process lives")
    async def healthz() -> Health:
        """Answer as long as the process can."""
        return Health(status="ok")

    @routes.get("/readyz", responses=describe(HTTPStatus.SERVICE_UNAVAILABLE), summary="Ready for jobs")
    def readyz() -> Health:
        """Answer 200 where Redis answers and a worker with a loaded model is there.

        Otherwise `missing` says which is not: `redis` or `worker`.
        """
        try:
            ready = bool(store.models())
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise _not_ready("Redis does not answer", "redis") from error
        if not ready:
            raise _not_ready("no worker with a loaded model is there", "worker")
        return Health(status="ready")

    return routes


def _not_ready(detail: str, missing: str) -> ProblemError:
    headers = {"Retry-After": str(POLL_SECONDS)}
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", detail, headers=headers, missing=[missing]
    )
