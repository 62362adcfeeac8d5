"""One worker process: loads the networks, warms them up, says that it is ready, and takes jobs until it is
told to stop. `worker.supervisor` starts one for each device; it hands the jobs to `worker.run`.
"""

import logging
import os
import signal
import threading
import time

from redis import Redis
from redis.exceptions import RedisError

from jobs.contract import Defaults, Model
from jobs.logs import log_json_lines
from jobs.maintenance import Maintenance
from jobs.store import JobStore, connect
from model.checkpoint import checkpoint_revision, load_checkpoint
from model.device import choose_precision, choose_slots, prepare_device
from model.engine import Engine
from model.errors import CheckpointError, DeviceError
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.pipeline import Pipeline
from worker import CANNOT_START
from worker.leasing import HEARTBEAT_SECONDS, LeasingWorker
from worker.metrics import Metrics
from worker.run import JobRunner, serve_with
from worker.supervisor import WorkerOptions
from worker.watch import Watch

log = logging.getLogger("face_anon.worker")

DEVICE_FAILED = 3

LOOK_SECONDS = 0.1
HANG_SECONDS = 120
"""How long after its time limit a job is given to reach its next step."""
END_SECONDS = 5
"""How long the jobs in hand have to end when the device has failed."""


def run_worker(name: str, device: str, options: WorkerOptions) -> None:
    """Work until SIGTERM or SIGINT, then exit the process: with 0 where it was asked to.

    Once asked, it takes no more jobs, and those that do not end within `grace_seconds`, or until it is asked
    again, go back into the queue.
    """
    log_json_lines("worker")
    logging.getLogger("rq.worker").setLevel(logging.WARNING)  # it has its own level
    try:
        precision = choose_precision(options.precision, device)
        checkpoint = load_checkpoint(options.checkpoint, precision=precision, device=device)
    except (CheckpointError, DeviceError) as error:
        log.error("%s", error)  # noqa: TRY400  the sentence is for the operator
        os._exit(CANNOT_START)
    prepare_device(checkpoint, compiled=options.compiled, memory_fraction=options.memory_fraction)
    slots = options.slots or choose_slots(checkpoint)
    engine = Engine(checkpoint, slots=slots).start()
    try:
        engine.warm_up()
    except DeviceError:
        log.exception("the device %s does not work", device)
        os._exit(DEVICE_FAILED)
    pipeline = Pipeline(engine, FaceFinder(options.face_threshold), DlibFaceEmbedder())
    os._exit(WorkerProcess(name, options, pipeline, slots).run())


class WorkerProcess:
    """The threads of a worker process: one leases jobs, one keeps the leases, one watches the jobs."""

    def __init__(self, name: str, options: WorkerOptions, pipeline: Pipeline, slots: int) -> None:
        self._name = name
        self._grace_seconds = options.grace_seconds
        self._slots = slots
        checkpoint = pipeline.engine.checkpoint
        self._model = Model(
            name=checkpoint.name,
            revision=checkpoint_revision(options.checkpoint),
            resolution=checkpoint.resolution,
            demonstration=checkpoint.properties.demonstration,
            defaults=Defaults.model_validate(checkpoint.properties.defaults.model_dump()),
        )
        self._asked_to_stop = 0
        self._stopping = threading.Event()
        self._ended = threading.Event()
        impatient = connect(options.redis_url)
        self._store = JobStore(impatient)
        self._maintenance = Maintenance(self._store)
        self._watch = Watch(impatient)
        self._metrics = Metrics(slots, pipeline.engine)
        patient: Redis = connect(options.redis_url, patient=True)
        runner_store = JobStore(patient)
        self._runner = JobRunner(runner_store, pipeline, self._model, self._watch, self._metrics)
        self._leasing = LeasingWorker(patient, name, slots)

    def run(self) -> int:
        """Work until told to stop, or until the device fails; returns the exit code."""
        serve_with(self._runner)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        leasing = threading.Thread(target=self._leasing.lease_jobs, args=(self._takes_no_more,), daemon=True)
        threads = [
            threading.Thread(target=self._watch.listen, args=(self._ended,), daemon=True),
            threading.Thread(target=self._keep_alive, daemon=True),
            leasing,
        ]
        for thread in threads:
            thread.start()
        code = self._wait(leasing)
        self._ended.set()
        self._leave(counts_as_death=code != 0)
        return code

    def _ask_to_stop(self, number: int, frame: object) -> None:  # noqa: ARG002  a handler's
        self._asked_to_stop += 1

    def _takes_no_more(self) -> bool:
        """Tell whether to leave the jobs to others: one that a failed device gave back above all."""
        return self._stopping.is_set() or self._runner.device_failed.is_set()

    def _wait(self, leasing: threading.Thread) -> int:
        """Return the exit code when it is time to go; what is in hand then goes back."""
        until: float | None = None
        while leasing.is_alive():
            time.sleep(LOOK_SECONDS)
            if self._runner.device_failed.is_set():
                self._stopping.set()
                leasing.join(END_SECONDS)
                return DEVICE_FAILED
            if overdue := self._runner.overdue(HANG_SECONDS):
                log.error("the engine hangs: %s should have ended long ago", ", ".join(overdue))
                return DEVICE_FAILED
            if self._asked_to_stop and until is None:
                log.info("taking no more jobs, waiting for those in hand")
                self._stopping.set()
                until = time.monotonic() + self._grace_seconds
            if until is not None and (self._asked_to_stop > 1 or time.monotonic() > until):
                return 0
        return 0 if self._stopping.is_set() else 1

    def _leave(self, *, counts_as_death: bool) -> None:
        """Put back what is in hand, if anything, and say that this worker is gone."""
        try:
            if counts_as_death:
                self._maintenance.abandon(self._name)
            elif count := self._maintenance.put_back(self._name):
                log.info("put %d job(s) back into the queue", count)
        except RedisError as error:
            log.warning("Redis is away; the leases will run out: %s", error)

    def _keep_alive(self) -> None:
        """Renew leases, say that this worker is ready, hand out what it measures."""
        while True:
            try:
                self._store.announce(self._name, self._model, self._slots)
                self._leasing.keep_alive()
                self._store.report_metrics(self._name, self._metrics.exposition())
            except RedisError as error:
                log.warning("could not say that this worker is alive: %s", error)
            except Exception:  # of ours; without this thread the jobs in hand would be taken for lost
                log.exception("could not say that this worker is alive")
            if self._ended.wait(HEARTBEAT_SECONDS):
                return
