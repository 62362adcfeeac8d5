"""Runs one job: fetches its pictures, has the model make the result, publishes it. RQ calls `run_job` in a
place of a process where `worker.main` has loaded the networks; what comes after is the service's answer.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from redis.exceptions import RedisError

from jobs.contract import (
    FaceResult,
    JobRequest,
    Kind,
    Model,
    Outcome,
    PictureResult,
    Problem,
    Progress,
    Status,
    Timings,
)
from jobs.maintenance import NOT_STARTED
from jobs.store import JobStore
from model.errors import (
    DeviceError,
    ModelError,
    NoFaceError,
    ParameterError,
    PictureError,
    StoppedError,
)
from model.photo import PhotoFormat, Pixels, read_photo
from model.pipeline import Faces, Made, Pipeline, Sampling, write_made
from model.replace import FaceOutcome, OnFaceStep
from model.task import Sampler
from worker.metrics import STAGES, Metrics
from worker.watch import Watch, Watched

log = logging.getLogger("face_anon.worker")

PUBLISH_AGAIN_SECONDS = 1.0
PROBLEM_CODES = {NoFaceError: "no_face_in_source", PictureError: "unreadable_picture"}


class TimeLimitError(StoppedError):
    """A job ran for longer than it may."""


class JobRunner:
    """Runs jobs with one loaded pipeline, several at a time in threads."""

    def __init__(
        self, store: JobStore, pipeline: Pipeline, model: Model, watch: Watch, metrics: Metrics
    ) -> None:
        """Use `store` on a patient client: what a finished job has to say waits until Redis is back."""
        self._store = store
        self._pipeline = pipeline
        self._model = model
        self._watch = watch
        self._metrics = metrics
        self._run_until: dict[str, float] = {}
        self.device_failed = threading.Event()
        """Set where the device is of no use any more to this process."""

    def run(self, job_id: str) -> None:
        """Run the job to its outcome, or until it is canceled: that is looked at at every denoising step.

        An error of the job is its outcome; the worker lives on. Only `DeviceError` is raised, and
        `device_failed` is set: then the job must be tried again by another process.

        Safe to call twice for one job: an ended job is not run again, and only one outcome is published.
        """
        started = self._store.start(job_id)
        if started is None:
            return
        request = started.request
        waited = (datetime.now(UTC) - request.created_at).total_seconds()
        queue_ms = _milliseconds(waited)
        limits = request.limits
        if not started.again:
            self._metrics.waiting.observe(max(0, waited))
        if waited > limits.start_seconds and not started.again:
            self._publish(request, _failed(NOT_STARTED, queue_ms, self._model), None)
            return
        self._run_until[job_id] = time.monotonic() + limits.run_seconds
        try:
            with self._watch.job(job_id) as watched, self._metrics.running.track_inprogress():
                outcome, picture = self._end_of(request, started.pictures, queue_ms, watched)
        finally:
            del self._run_until[job_id]
        if outcome is None:
            self._metrics.jobs.labels(Status.CANCELED).inc()
        else:
            self._publish(request, outcome, picture, watched.reached)

    def overdue(self, seconds: float) -> list[str]:
        """Return the jobs that have run for `seconds` longer than they may: the engine must hang."""
        now = time.monotonic()
        return [job_id for job_id, until in list(self._run_until.items()) if now > until + seconds]

    def _end_of(
        self, request: JobRequest, pictures: list[bytes] | None, queue_ms: int, watched: Watched
    ) -> tuple[Outcome | None, bytes | None]:
        """Return the outcome of a run and its picture; no outcome where it was canceled."""
        try:
            return self._make(request, pictures, queue_ms, watched)
        except TimeLimitError as error:
            problem = Problem(
                title="The job took too long", detail=str(error), code="time_limit", retryable=False
            )
        except StoppedError:
            log.info("job %s was canceled", request.id)  # who canceled it has published that
            return None, None
        except DeviceError:
            log.exception("job %s met a device that fails", request.id)
            self.device_failed.set()
            raise
        except ModelError as error:
            code = next(
                (code for kind, code in PROBLEM_CODES.items() if isinstance(error, kind)), "model_error"
            )
            problem = Problem(
                title="The picture could not be made", detail=str(error), code=code, retryable=False
            )
        except Exception:
            log.exception("job %s failed", request.id)
            detail = "Something in the worker went wrong; its log has the details."
            problem = Problem(title="The job failed", detail=detail, code="internal_error", retryable=True)
        return _failed(problem, queue_ms, self._model), None

    def _publish(
        self,
        request: JobRequest,
        outcome: Outcome,
        picture: bytes | None,
        progress: Progress | None = None,
    ) -> None:
        """Publish an outcome, however long Redis does not take it."""
        while True:
            try:
                published = self._store.publish(request, outcome, picture, progress)
                break
            except RedisError as error:
                log.warning("the outcome of job %s could not be published yet: %s", request.id, error)
                time.sleep(PUBLISH_AGAIN_SECONDS)
        if not published:
            log.info("job %s had ended before", request.id)
            return
        log.info("job %s %s", request.id, outcome.status)
        self._metrics.jobs.labels(outcome.status).inc()
        if outcome.error:
            self._metrics.failures.labels(outcome.error.code).inc()
        for stage in STAGES:
            took = getattr(outcome.timings, f"{stage}_ms")
            if took is not None:
                self._metrics.stages.labels(stage).observe(took / 1000)
        for face in outcome.result.faces if outcome.result else []:
            self._metrics.faces.labels(face.status).inc()

    def _make(
        self, request: JobRequest, pictures: list[bytes] | None, queue_ms: int, watched: Watched
    ) -> tuple[Outcome, bytes | None]:
        if pictures is None:
            detail = "The job waited for longer than its pictures are kept."
            expired = Problem(
                title="The upload has expired", detail=detail, code="upload_expired", retryable=False
            )
            return _failed(expired, queue_ms, self._model), None
        parameters = request.parameters
        photos = [read_photo(picture, max_pixels=request.limits.max_pixels) for picture in pictures]
        made = self._replace(request, [photo.pixels for photo in photos], watched)
        encoding = time.monotonic()
        changed = photos[-1]  # of a swap, the driving photo
        picture = write_made(made, changed, PhotoFormat(parameters.format))
        height, width = made.photo.pixels.shape[:2]
        outcome = Outcome(
            status=Status.SUCCEEDED,
            finished_at=datetime.now(UTC),
            result=PictureResult(
                media_type=parameters.format.media_type,
                width=width,
                height=height,
                faces=[_face_result(index, face) for index, face in enumerate(made.photo.faces)],
            ),
            timings=Timings(
                queue_ms=queue_ms,
                detect_ms=_milliseconds(made.detect_seconds),
                sample_ms=_milliseconds(made.sample_seconds),
                encode_ms=_milliseconds(time.monotonic() - encoding),
            ),
            model=self._model,
            warnings=_warnings(made),
        )
        return outcome, picture

    def _replace(self, request: JobRequest, photos: list[Pixels], watched: Watched) -> Made:
        parameters = request.parameters
        sampler = Sampler(parameters.sampler)
        sampling = Sampling(parameters.seed, parameters.steps, parameters.guidance_scale, sampler)
        faces = Faces(parameters.faces)
        max_faces = request.limits.max_faces
        on_step = self._reporter(request, watched)
        if request.kind is Kind.SWAP:
            source, driving = photos
            return self._pipeline.swap(
                source, driving, sampling, faces=faces, max_faces=max_faces, on_step=on_step
            )
        (photo,) = photos
        if parameters.d is None:
            raise ParameterError("d is missing, an anonymize job needs it")
        return self._pipeline.anonymize(
            photo, sampling, degree=parameters.d, faces=faces, max_faces=max_faces, on_step=on_step
        )

    def _reporter(self, request: JobRequest, watched: Watched) -> OnFaceStep:
        """Return what is called at each step: it takes no time, and never waits for Redis."""
        until = self._run_until[request.id]

        def on_step(face: int, faces: int, done: int, steps: int) -> None:
            if watched.ended:
                raise StoppedError(f"job {request.id} was canceled")
            if time.monotonic() > until:
                limit = request.limits.run_seconds
                raise TimeLimitError(f"the job ran for longer than {limit} seconds, the limit")
            fraction = (face - 1 + done / steps) / faces
            watched.progress = watched.reached = Progress(
                fraction=fraction, face=face, faces=faces, step=done, steps=steps
            )

        return on_step


def _failed(problem: Problem, queue_ms: int, model: Model) -> Outcome:
    return Outcome(
        status=Status.FAILED,
        finished_at=datetime.now(UTC),
        error=problem,
        timings=Timings(queue_ms=queue_ms),
        model=model,
    )


_run: Callable[[str], None] | None = None


def serve_with(runner: JobRunner) -> None:
    """Let `run_job` run its jobs with `runner`, from now on, in this process."""
    global _run  # noqa: PLW0603  RQ calls a function by its import path; this is what that function finds
    _run = runner.run


def run_job(job_id: str) -> None:
    """Run one job in this worker process; called by RQ."""
    if _run is None:
        raise RuntimeError("no networks are loaded in this process: start it with face-anon worker")
    _run(job_id)


def _face_result(index: int, outcome: FaceOutcome) -> FaceResult:
    box = outcome.face.box
    return FaceResult(
        index=index,
        box=(round(box.x, 1), round(box.y, 1), round(box.width, 1), round(box.height, 1)),
        score=round(outcome.face.score, 3),
        status=outcome.status.value,
        seed=outcome.seed,
        identity_distance=None if outcome.identity_distance is None else round(outcome.identity_distance, 3),
        warnings=list(outcome.warnings),
    )


def _warnings(made: Made) -> list[str]:
    """Say of the whole photo what a caller must not miss."""
    faces = made.photo.faces
    warnings = [f"face {index}: {warning}" for index, face in enumerate(faces) for warning in face.warnings]
    if not faces:
        warnings.append("no face was found: the photo is as it was")
    if made.photo.left_alone:
        warnings.append(f"{made.photo.left_alone} smaller face(s) were left as they were, as asked")
    return warnings


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
