"""Runs one job: fetches its pictures, has the model make the result, publishes it. RQ calls `run_job` in a
process where `worker.main` has loaded the networks; nothing comes after it but the service's answer.
"""

import io
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from PIL import Image

from jobs.contract import (
    FaceResult,
    JobRequest,
    Kind,
    Model,
    Outcome,
    Parameters,
    PictureFormat,
    PictureResult,
    Problem,
    Progress,
    Status,
    Timings,
)
from jobs.store import JobStore
from model.anonymize import anonymize_face, swap_face
from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.sampling import OnStep

log = logging.getLogger("face_anon.worker")

REPORT_SECONDS = 0.25


class JobRunner:
    """Runs jobs with one loaded checkpoint, one at a time."""

    def __init__(self, store: JobStore, checkpoint: Checkpoint, model: Model) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._model = model

    def run(self, job_id: str) -> None:
        """Run the job to its outcome. An error of the job is its outcome; the worker lives on.

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
        except ModelError as error:
            outcome = self._failed("The picture could not be made", str(error), "model_error", queue_ms)
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
        images = [_decode(picture) for picture in pictures]
        sampling = time.monotonic()
        result = self._sample(request.kind, images, request.parameters, self._reporter(request.id))
        encoding = time.monotonic()
        picture = _encode(result, request.parameters.format)
        timings = Timings(
            queue_ms=queue_ms,
            sample_ms=_milliseconds(encoding - sampling),
            encode_ms=_milliseconds(time.monotonic() - encoding),
        )
        face = FaceResult(
            index=0,
            box=(0, 0, result.width, result.height),
            score=None,
            status="replaced",
            seed=request.parameters.seed,
        )
        outcome = Outcome(
            status=Status.SUCCEEDED,
            finished_at=datetime.now(UTC),
            result=PictureResult(
                media_type=request.parameters.format.media_type,
                width=result.width,
                height=result.height,
                faces=[face],
            ),
            timings=timings,
            model=self._model,
        )
        return outcome, picture

    def _sample(
        self, kind: Kind, images: list[Image.Image], parameters: Parameters, on_step: OnStep
    ) -> Image.Image:
        if kind is Kind.SWAP:
            source, driving = images
            return swap_face(
                self._checkpoint,
                source,
                driving,
                seed=parameters.seed,
                steps=parameters.steps,
                guidance_scale=parameters.guidance_scale,
                on_step=on_step,
            )
        (image,) = images
        if parameters.d is None:
            raise ModelError("an anonymize job needs a degree d")
        return anonymize_face(
            self._checkpoint,
            image,
            degree=parameters.d,
            seed=parameters.seed,
            steps=parameters.steps,
            guidance_scale=parameters.guidance_scale,
            on_step=on_step,
        )

    def _reporter(self, job_id: str) -> OnStep:
        last = -REPORT_SECONDS

        def on_step(done: int, steps: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < REPORT_SECONDS and done < steps:
                return
            last = now
            progress = Progress(fraction=done / steps, face=1, faces=1, step=done, steps=steps)
            self._store.report(job_id, progress)

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


def _decode(picture: bytes) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as image:
        return image.convert("RGB")


def _encode(image: Image.Image, picture_format: PictureFormat) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=picture_format.value, quality=95, subsampling=0)
    return buffer.getvalue()


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
