"""One worker process: loads the networks, warms them up, says that it is ready, and takes jobs until it is
told to stop. `face-anon worker` starts it; it hands the jobs to `worker.run`.
"""

import logging
import os
import socket
import sys
import threading
from pathlib import Path

from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from jobs.contract import Defaults, Model
from jobs.store import LEASE_SECONDS, JobStore, connect
from model.checkpoint import checkpoint_revision, load_checkpoint
from model.device import choose_precision, choose_slots, prepare_device
from model.engine import Engine
from model.errors import CheckpointError
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.pipeline import Pipeline
from worker.leasing import MAINTENANCE_SECONDS, LeasingWorker
from worker.run import JobRunner, serve_with

log = logging.getLogger("face_anon.worker")

BAD_CHECKPOINT = 2


def run_worker(
    redis_url: str, *, checkpoint: Path, precision: str, device: str, face_threshold: float
) -> int:
    """Work until SIGTERM or SIGINT, finishing the job in hand; returns the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        loaded = load_checkpoint(checkpoint, precision=choose_precision(precision, device), device=device)
    except CheckpointError as error:
        log.error("%s", error)  # noqa: TRY400  the sentence is for the operator
        return BAD_CHECKPOINT
    prepare_device(loaded)
    engine = Engine(loaded, slots=choose_slots(loaded)).start()
    engine.warm_up()
    model = Model(
        name=loaded.name,
        revision=checkpoint_revision(checkpoint),
        resolution=loaded.resolution,
        demonstration=loaded.properties.demonstration,
        defaults=Defaults.model_validate(loaded.properties.defaults.model_dump()),
    )
    redis = connect(redis_url)
    store = JobStore(redis)
    pipeline = Pipeline(engine, FaceFinder(face_threshold), DlibFaceEmbedder())
    serve_with(JobRunner(store, pipeline, model))
    name = f"{socket.gethostname()}-{os.getpid()}"
    rq_worker = LeasingWorker(
        [store.queue],
        name=name,
        connection=redis,
        serializer=JSONSerializer,
        maintenance_interval=MAINTENANCE_SECONDS,
        worker_ttl=MAINTENANCE_SECONDS
        + 15,  # RQ waits for a job, and so for maintenance, 15 s less than this
        log_job_description=False,
    )
    stopping = threading.Event()
    announcing = threading.Thread(target=_keep_announcing, args=(store, name, model, stopping), daemon=True)
    announcing.start()
    try:
        rq_worker.work(logging_level=None)
    finally:
        stopping.set()
        announcing.join()
        engine.close()
    return 0


def _keep_announcing(store: JobStore, name: str, model: Model, stopping: threading.Event) -> None:
    while True:
        try:
            store.announce(name, model)
        except RedisError as error:
            log.warning("could not say that this worker is ready: %s", error)
        if stopping.wait(LEASE_SECONDS / 3):
            break
    try:
        store.withdraw(name)
    except RedisError as error:
        log.warning("could not say that this worker has stopped: %s", error)
