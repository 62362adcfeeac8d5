"""Runs one job: fetches its pictures, has the model make the result, publishes it. RQ calls `run_job` in a
process where `worker.main` has loaded the networks; nothing comes after it but the service's answer.
"""

import logging
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
from jobs.store import JobStore
from model.errors import ModelError, NoFaceError, ParameterError, PictureError, StoppedError
from model.photo import PhotoFormat, Pixels, read_photo
from model.pipeline import Faces, Made, Pipeline, Sampling, write_made
from model.replace import FaceOutcome, OnFaceStep
from model.task import Sampler
from worker.leasing import TimeLimitError

log = logging.getLogger("face_anon.worker")

REPORT_SECONDS = 0.25
PROBLEM_CODES = {NoFaceError: "no_face_in_source", PictureError: "unreadable_picture"}


class JobRunner:
    """Runs jobs with one loaded pipeline, one at a time."""

    def __init__(self, store: JobStore, pipeline: Pipeline, model: Model) -> None:
        self._store = store
        self._pipeline = pipeline
        self._model = model

    def run(self, job_id: str) -> None:
        """Run the job to its outcome, or until it is canceled: that is looked up at every denoising step.

        An error of the job is its outcome; the worker lives on.

        Safe to call twice for one job: an ended job is not run again, and only one outcome is published.
        """
        started = self._store.start(job_id)
        if started is None:
            return
        request, pictures = started
        queue_ms = _milliseconds((datetime.now(UTC) - request.created_at).total_seconds())
        picture: bytes | None = None
        try:
            outcome, picture = self._make(request, pictures, queue_ms)
        except TimeLimitError as error:
            outcome = self._failed("The job took too long", str(error), "time_limit", queue_ms)
        except StoppedError:
            log.info("job %s was canceled", job_id)  # who canceled it has published that
            return
        except ModelError as error:
            code = next(
                (code for kind, code in PROBLEM_CODES.items() if isinstance(error, kind)), "model_error"
            )
            outcome = self._failed("The picture could not be made", str(error), code, queue_ms)
        except Exception:
            log.exception("job %s failed", job_id)
            detail = "Something in the worker went wrong; its log has the details."
            outcome = self._failed("The job failed", detail, "internal_error", queue_ms, retryable=True)
        self._store.publish(request, outcome, picture)

    def _make(
        self, request: JobRequest, pictures: list[bytes] | None, queue_ms: int
    ) -> tuple[Outcome, bytes | None]:
        if pictures is None:
            detail = "The job waited for longer than its pictures are kept."
            return self._failed("The upload has expired", detail, "upload_expired", queue_ms), None
        parameters = request.parameters
        photos = [read_photo(picture, max_pixels=request.limits.max_pixels) for picture in pictures]
        made = self._replace(request, [photo.pixels for photo in photos])
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

    def _replace(self, request: JobRequest, photos: list[Pixels]) -> Made:
        parameters = request.parameters
        sampler = Sampler(parameters.sampler)
        sampling = Sampling(parameters.seed, parameters.steps, parameters.guidance_scale, sampler)
        faces = Faces(parameters.faces)
        max_faces = request.limits.max_faces
        on_step = self._reporter(request.id)
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

    def _reporter(self, job_id: str) -> OnFaceStep:
        last = -REPORT_SECONDS

        def on_step(face: int, faces: int, done: int, steps: int) -> None:
            nonlocal last
            now = time.monotonic()
            try:
                if now - last < REPORT_SECONDS and (face < faces or done < steps):
                    wanted = self._store.is_wanted(job_id)
                else:
                    last = now
                    fraction = (face - 1 + done / steps) / faces
                    progress = Progress(fraction=fraction, face=face, faces=faces, step=done, steps=steps)
                    wanted = self._store.report(job_id, progress)
            except RedisError as error:  # the picture can do without: only its outcome must arrive
                log.warning("could not report on job %s: %s", job_id, error)
                return
            if not wanted:
                raise StoppedError(f"job {job_id} was canceled")

        return on_step

    def _failed(
        self, title: str, detail: str, code: str, queue_ms: int, *, retryable: bool = False
    ) -> Outcome:
        return Outcome(
            status=Status.FAILED,
            finished_at=datetime.now(UTC),
            error=Problem(title=title, detail=detail, code=code, retryable=retryable),
            timings=Timings(queue_ms=queue_ms),
            model=self._model,
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
