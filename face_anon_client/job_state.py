"""A job as the service last described it: frozen values, read from its JSON without knowing more than their
own annotations. Fields that a newer service adds are ignored.
"""

from dataclasses import dataclass, is_dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from face_anon_client.errors import UnexpectedAnswerError


class Status(StrEnum):
    """Where a job is in its life; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self not in {Status.QUEUED, Status.RUNNING}


@dataclass(frozen=True)
class Progress:
    """How far a running job is: `step` of `steps` of face `face` of `faces`; `fraction` of all, 0 to 1."""

    fraction: float
    face: int
    faces: int
    step: int
    steps: int


@dataclass(frozen=True)
class QueuePlace:
    """Where a queued job stands: position 1 is next; `eta_seconds` is when it is likely to start."""

    position: int
    eta_seconds: float | None = None


@dataclass(frozen=True)
class Parameters:
    """What the job is made with, every default of the model filled in; `d` is None for a swap."""

    seed: int
    steps: int
    guidance_scale: float
    sampler: str
    faces: str
    format: str
    d: float | None = None


@dataclass(frozen=True)
class Face:
    """What became of one face. `status` is `replaced`, or `redacted`: covered for good.

    `box` is x, y, width, height in pixels of the result. `identity_distance` is an identity network's
    distance from the new face to the original, None where it could not look; `possibly recognizable` among
    `warnings` says that it is too small.
    """

    index: int
    box: tuple[float, ...]
    score: float
    status: str
    seed: int
    identity_distance: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """The finished picture, in pixels, and its faces in reading order; kept until `expires_at`."""

    url: str
    media_type: str
    width: int
    height: int
    faces: tuple[Face, ...]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Timings:
    """How long the stages of a job took, in milliseconds."""

    queue_ms: int | None = None
    detect_ms: int | None = None
    sample_ms: int | None = None
    encode_ms: int | None = None


@dataclass(frozen=True)
class Model:
    """The weights that made the picture."""

    name: str
    revision: str


@dataclass(frozen=True)
class Failure:
    """Why a job failed; `code` is stable, `retryable` says whether another try may succeed."""

    code: str
    title: str
    detail: str
    retryable: bool


@dataclass(frozen=True)
class Links:
    """Where the service says to go on, from its root."""

    self: str
    result: str
    events: str
    cancel: str


@dataclass(frozen=True)
class JobState:
    """A job at one moment. Times are in UTC; what is not known yet is None."""

    id: str
    kind: str
    status: Status
    created_at: datetime
    parameters: Parameters
    links: Links
    progress: Progress | None = None
    queue: QueuePlace | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    reference: str | None = None
    result: Result | None = None
    timings: Timings = Timings()
    model: Model | None = None
    warnings: tuple[str, ...] = ()
    error: Failure | None = None


def read_job(answer: object) -> JobState:
    """Return the job that an answer's JSON describes; raises `UnexpectedAnswerError` where it is none."""
    try:
        job = _read(JobState, answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswerError(
            "the service's answer is not a job: is this the right address?"
        ) from error
    assert isinstance(job, JobState)  # noqa: S101  tells the type
    return job


def _read(kind: Any, value: Any) -> Any:  # noqa: ANN401  any annotation of the classes above, any JSON
    if get_origin(kind) in {Union, UnionType}:
        (present,) = (choice for choice in get_args(kind) if choice is not NoneType)
        return None if value is None else _read(present, value)
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], item) for item in value)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hint, value[name]) for name, hint in hints.items() if name in value})
    if kind is datetime:
        return datetime.fromisoformat(value)
    return kind(value)
