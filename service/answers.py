"""The job as callers see it: the JSON of `API.md`, made from a `JobRecord`."""

from datetime import datetime, timedelta

from pydantic import BaseModel, Field

from jobs.contract import FaceResult, Kind, Model, Parameters, Problem, Progress, Status, Timings
from jobs.store import JobRecord, JobView


class QueuePlace(BaseModel):
    """Where a queued job stands."""

    position: int = Field(ge=1, description="1 is next.")
    eta_seconds: float | None = Field(
        ge=0,
        description="After how long the job is likely to start, from how long the latest jobs took and "
        "how many workers there are; null while that is not known.",
    )


class ResultAnswer(BaseModel):
    """The finished picture: where it is, and what became of each face."""

    url: str
    expires_at: datetime = Field(description="From then on the picture is a `410`, while the job is known.")
    media_type: str
    width: int
    height: int
    faces: list[FaceResult]


class ModelAnswer(BaseModel):
    """The weights that make, or made, the picture."""

    name: str
    revision: str


class Links(BaseModel):
    """Where to go from here."""

    self: str
    result: str
    events: str
    cancel: str


class JobAnswer(BaseModel):
    """A job."""

    id: str
    kind: Kind
    status: Status
    progress: Progress | None
    queue: QueuePlace | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime = Field(
        description="From then on the job is a `404`. Of a job that has not ended: when it is given up."
    )
    parameters: Parameters
    reference: str | None
    result: ResultAnswer | None
    timings: Timings
    model: ModelAnswer | None
    warnings: list[str]
    error: Problem | None
    links: Links


HIGH_DEGREE = 1.5


def job_answer(view: JobView, base: str) -> JobAnswer:
    """Describe a job; `base` is the root path of all links."""
    job, models = view.job, view.models
    outcome = job.outcome
    model = outcome.model if outcome else None
    model = model or (models[0] if models else None)
    request = job.request
    self_link = f"{base}/jobs/{request.id}"
    links = Links(
        self=self_link,
        result=f"{self_link}/result",
        events=f"{self_link}/events",
        cancel=f"{self_link}/cancel",
    )
    return JobAnswer(
        id=request.id,
        kind=request.kind,
        status=job.status,
        progress=job.progress,
        queue=QueuePlace(position=job.position, eta_seconds=view.eta_seconds) if job.position else None,
        created_at=request.created_at,
        started_at=job.started_at,
        finished_at=outcome.finished_at if outcome else None,
        expires_at=job.expires_at,
        parameters=request.parameters,
        reference=request.reference,
        result=_result_answer(job, links.result),
        timings=outcome.timings if outcome else Timings(),
        model=ModelAnswer(name=model.name, revision=model.revision) if model else None,
        warnings=[*_warnings(request.parameters, model), *(outcome.warnings if outcome else [])],
        error=outcome.error if outcome else None,
        links=links,
    )


def _result_answer(job: JobRecord, url: str) -> ResultAnswer | None:
    if job.outcome is None or job.outcome.result is None:
        return None
    expires_at = job.outcome.finished_at + timedelta(seconds=job.request.limits.result_seconds)
    return ResultAnswer(url=url, expires_at=expires_at, **job.outcome.result.model_dump())


def _warnings(parameters: Parameters, model: Model | None) -> list[str]:
    warnings = model.warnings if model else []
    if parameters.d is not None and parameters.d > HIGH_DEGREE:
        warnings = [*warnings, f"d is {parameters.d}: above {HIGH_DEGREE} faces stop being faces"]
    return warnings
