"""What a worker process measures, as Prometheus metrics. `worker.main` hands them to Redis, where the service
shows those of all workers.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from model.engine import Engine

STAGES = ("queue", "detect", "sample", "encode")
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_PAGE = 4096


class Metrics:
    """The metrics of one process."""

    def __init__(self, places: int, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_EngineMetrics(engine))
        self.waiting = Histogram(
            "face_anon_job_waiting_seconds",
            "From the submission of a job to its start.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "face_anon_stage_seconds",
            "How long a stage of a finished job took.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.jobs = Counter("face_anon_jobs", "Jobs that ended here.", ["status"], registry=registry)
        self.failures = Counter(
            "face_anon_job_failures", "Jobs that failed here.", ["code"], registry=registry
        )
        self.faces = Counter("face_anon_faces", "Faces that were dealt with.", ["status"], registry=registry)
        self.running = Gauge("face_anon_jobs_running", "Jobs in hand.", registry=registry)
        Gauge("face_anon_places", "How many jobs run at a time.", registry=registry).set(places)

    def exposition(self) -> bytes:
        """Return the metrics as Prometheus text."""
        return generate_latest(self._registry)


class _EngineMetrics(Collector):
    """What the engine has counted, and the memory of the process, at the time they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        counters = self._engine.counters()
        for name, text, number in (
            ("face_anon_batch_slots", "How many faces fit into the batch.", counters.slots),
            ("face_anon_batch_faces", "Faces in the batch now.", counters.live),
            ("face_anon_batch_occupancy_ratio", "The part of the slots in use now.", counters.occupancy),
            ("face_anon_faces_waiting", "Faces that wait for a slot.", counters.waiting),
        ):
            yield GaugeMetricFamily(name, text, number)
        for name, text, number in (
            ("face_anon_batch_steps", "Times that the batch was advanced.", counters.steps),
            ("face_anon_face_steps", "Denoising steps of all faces together.", counters.face_steps),
            ("face_anon_faces_made", "Faces that the networks have made.", counters.faces_done),
            ("face_anon_faces_failed", "Faces that the networks could not make.", counters.faces_failed),
            ("face_anon_faces_paused", "Times that a face made room for another.", counters.paused),
        ):
            yield CounterMetricFamily(name, text, number)
        seconds = CounterMetricFamily(
            "face_anon_engine_seconds", "What the engine spent its time on.", labels=["stage"]
        )
        for stage, spent in (
            ("encode", counters.encode_seconds),
            ("reference", counters.reference_seconds),
            ("step", counters.step_seconds),
            ("unet", counters.unet_seconds),
            ("decode", counters.decode_seconds),
            ("busy", counters.busy_seconds),
        ):
            seconds.add_metric([stage], spent)
        yield seconds
        memory = GaugeMetricFamily("face_anon_memory_bytes", "Memory in use.", labels=["kind"])
        memory.add_metric(["resident"], resident_bytes())
        device = self._engine.checkpoint.device
        if device.type == "cuda":
            memory.add_metric(["cuda_allocated"], torch.cuda.memory_allocated(device))
            memory.add_metric(["cuda_reserved"], torch.cuda.memory_reserved(device))
        yield memory


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
