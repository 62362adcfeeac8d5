"""`GET /metrics`: Prometheus text of the service's processes, of the queue, and of each live worker.

`service.requests` counts requests; workers put their own text into Redis (`jobs.store`), where it is read,
labelled with the worker's name and merged, so that one address shows the whole of a small installation.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from jobs.store import JobStore

log = logging.getLogger("face_anon.service")

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where several processes keep their numbers; prometheus_client's name, set before it is imported."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RequestMetrics:
    """What is counted of the requests: of this process', and of those that share `SHARED_FOLDER` with it."""

    def __init__(self) -> None:
        # When each counter began would be a series more for each of ours.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        forget_dead_processes()
        self._requests = Counter(
            "face_anon_http_requests", "Requests, by route and status.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "face_anon_http_request_seconds",
            "From the first byte in to the last byte out; long polls and event streams last as they like.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._received = Counter(
            "face_anon_http_received_bytes", "Bytes of request bodies.", ["route"], registry=self._registry
        )
        self._waits = Gauge(
            "face_anon_open_waits", "Long polls and event streams that wait now.", registry=self._registry,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def observe(self, method: str, route: str, status: int, seconds: float, received: int) -> None:
        """Count one request; a status of 0 says that the caller left before the answer."""
        requests, lasted, received_bytes = self._of(method, route, status)
        requests.inc()
        lasted.observe(seconds)
        received_bytes.inc(received)

    @cache  # noqa: B019  lives as long as the process; of labels there are some tens
    def _of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram, Counter]:
        return (
            self._requests.labels(method, route, status),
            self._seconds.labels(route),
            self._received.labels(route),
        )

    def collect(self) -> Iterable[Metric]:
        """Return the families, those of all processes added up."""
        if SHARED_FOLDER not in os.environ:
            return self._registry.collect()
        together: Collector = MultiProcessCollector(CollectorRegistry())  # type: ignore[no-untyped-call]
        return together.collect()

    async def count_waits(self, waits: Callable[[], int]) -> None:
        """Note once a second how many wait, until cancelled."""
        while True:
            self._waits.set(waits())
            await asyncio.sleep(1)


def forget_dead_processes() -> None:
    """Take what processes of this service that were killed had in hand out of the numbers of all."""
    if SHARED_FOLDER not in os.environ:
        return
    for file in Path(os.environ[SHARED_FOLDER]).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


class WholeService(Collector):
    """Everything that `/metrics` shows, in one answer."""

    def __init__(self, store: JobStore, requests: RequestMetrics) -> None:
        self._store = store
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Yield each family once."""
        yield from self._requests.collect()
        try:
            queued, oldest = self._store.queued(), self._store.oldest_queued()
            ready, expositions = len(self._store.models()), self._store.worker_metrics()
        except RedisError as error:
            log.warning("Redis does not answer, /metrics has only the service's own numbers: %s", error)
            yield GaugeMetricFamily("face_anon_redis_up", "Whether Redis answers.", 0)
            return
        yield GaugeMetricFamily("face_anon_redis_up", "Whether Redis answers.", 1)
        yield GaugeMetricFamily("face_anon_queue_jobs", "Jobs that wait for a worker.", queued)
        age = max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else 0
        yield GaugeMetricFamily("face_anon_queue_oldest_seconds", "Age of the job that is next.", age)
        yield GaugeMetricFamily("face_anon_workers_ready", "Workers with a loaded model.", ready)
        yield from merged(expositions)


def merged(expositions: dict[str, bytes]) -> Iterable[Metric]:
    """Return the workers' families, each once, its samples labelled with the worker they come from."""
    families: dict[str, Metric] = {}
    for worker, exposition in sorted(expositions.items()):
        try:
            parsed = list(text_string_to_metric_families(exposition.decode()))
        except ValueError as error:
            log.warning("the metrics of worker %s cannot be read: %s", worker, error)
            continue
        for family in parsed:
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [
                sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples
            ]
    return families.values()


def metrics_route(routes: APIRouter, whole: Collector) -> APIRouter:
    """Add `GET /metrics` to `routes`."""

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus text.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
        summary="Numbers for Prometheus",
    )
    def get_metrics() -> Response:
        """Return the numbers of the service's processes, of the queue and of each live worker."""
        return Response(generate_latest(whole), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
