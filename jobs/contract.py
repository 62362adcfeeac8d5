"""The job contract: the values that service and worker exchange, as frozen, JSON-able types.

The service makes a `JobRequest` and reads `Progress` and `Outcome`; the worker does the reverse. What lies
where in Redis is `jobs.store`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SEEDS = 2**63
"""Seeds are below this: a double, as FastAPI keeps limits, holds 2**63 and not 2**63 - 1."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """What a job does."""

    ANONYMIZE = "anonymize"
    SWAP = "swap"


UPLOADS = {Kind.ANONYMIZE: ("image",), Kind.SWAP: ("source", "driving")}
"""The names of the pictures that a job comes with."""


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


class Sampler(StrEnum):
    """How the noise is removed; `ddpm` is the paper's, the others need fewer steps."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    UNIPC = "unipc"


class Faces(StrEnum):
    """Which faces of the photo are replaced."""

    ALL = "all"
    """Every face found in the photo."""
    LARGEST = "largest"
    ALIGNED = "aligned"
    """The whole picture is one face, aligned as in FFHQ; the result has the model's resolution."""


class PictureFormat(StrEnum):
    """The formats a result is written in."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"

    @property
    def media_type(self) -> str:
        """The media type of a picture of this format."""
        return f"image/{self.value}"


class Parameters(_Value):
    """What the caller asked for, with every default filled in."""

    d: Annotated[float | None, Field(ge=0, le=2)] = Field(
        default=None, description="Degree of anonymization; null for a swap."
    )
    seed: int = Field(ge=0, lt=SEEDS, description="Which new face; echoed where it was drawn.")
    steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=20)
    sampler: Sampler = Sampler.DDPM
    faces: Faces = Faces.ALL
    format: PictureFormat


class Limits(_Value):
    """What the service lets a job take; the worker holds to it."""

    max_pixels: int = Field(ge=1)
    max_faces: int = Field(ge=1, description="More faces than that are covered, the smallest first.")
    start_seconds: int = Field(default=3600, ge=1, description="A job not begun by then fails.")
    run_seconds: int = Field(default=3600, ge=1, description="A job that runs for longer fails.")
    max_deaths: int = Field(
        default=2, ge=1, description="A job whose worker dies this often while it runs it fails as poisonous."
    )
    result_seconds: int = Field(ge=1, description="How long the picture is kept.")
    record_seconds: int = Field(ge=1, description="How long the finished job is kept.")


class Idempotency(_Value):
    """What tells a request that was sent again from another one; digests, never what the caller sent."""

    key: str = Field(description="SHA-256 of the caller's key.")
    fingerprint: str = Field(description="SHA-256 of every field and picture of the request.")


class JobRequest(_Value):
    """A job as the service queues it. The pictures lie beside it, under keys of their own."""

    id: str
    kind: Kind
    parameters: Parameters
    reference: str | None
    owner: str | None = Field(default=None, description="The name of the caller's API key, if it has one.")
    request_id: str | None = Field(default=None, description="Of the HTTP request, for logs.")
    created_at: datetime
    limits: Limits
    idempotency: Idempotency | None = None


class Progress(_Value):
    """How far a running job is: `step` of `steps` of face `face` of `faces`."""

    fraction: float = Field(ge=0, le=1)
    face: int = Field(ge=0)
    faces: int = Field(ge=0)
    step: int = Field(ge=0)
    steps: int = Field(ge=0)


class FaceResult(_Value):
    """What became of one face, in reading order."""

    index: int = Field(ge=0)
    box: tuple[float, float, float, float] = Field(
        description="x, y, width, height in pixels of the result; a face over the edge reaches beyond it."
    )
    score: float = Field(ge=0, le=1, description="The detector's confidence; 1 for an aligned picture.")
    status: Literal["replaced", "redacted"] = Field(
        description="A face that could not be replaced is covered for good, never left as it was."
    )
    seed: int = Field(ge=0, lt=SEEDS, description="The face's own seed; the job's for the first face.")
    identity_distance: float | None = Field(
        default=None,
        ge=0,
        description="An identity network's distance from the new face to the original; null where it could "
        "not look.",
    )
    warnings: list[str] = Field(default=[], examples=[["possibly recognizable"]])


class PictureResult(_Value):
    """The finished picture; its bytes lie under a key of their own."""

    media_type: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    faces: list[FaceResult]


class Problem(_Value):
    """Why a job failed (RFC 9457, with a stable `code`)."""

    type: str = "about:blank"
    title: str
    detail: str
    code: str
    retryable: bool = Field(description="Whether the same request may succeed another time.")


class Timings(_Value):
    """How long the stages of a job took, in milliseconds."""

    queue_ms: int | None = None
    detect_ms: int | None = None
    sample_ms: int | None = None
    encode_ms: int | None = None


class Defaults(_Value):
    """What a checkpoint is best used with, where a request does not say; as published unless it says so."""

    d: float = Field(default=1.25, ge=0, le=2)
    sampler: Sampler = Sampler.DDPM
    steps: int = Field(default=200, ge=1, le=1000, description="Steps of `sampler`.")
    guidance_scale: float = Field(default=4.0, ge=0, le=20)


class Model(_Value):
    """The weights that make the pictures."""

    name: str
    revision: str
    resolution: int = Field(description="The side, in pixels, of the faces the model makes.")
    demonstration: bool = Field(description="The weights are not meant for photos of people.")
    defaults: Defaults = Defaults()

    @property
    def warnings(self) -> list[str]:
        """What every answer made with these weights must say."""
        if not self.demonstration:
            return []
        return [f"demonstration weights ({self.name}): made for rendered faces, not for photos of people"]


class Announcement(_Value):
    """What a worker says of itself while it takes jobs."""

    model: Model
    places: int = Field(default=1, ge=1, description="How many jobs it runs at a time.")


class Outcome(_Value):
    """How a job ended: with a picture, or with a problem."""

    status: Literal[Status.SUCCEEDED, Status.FAILED, Status.CANCELED]
    finished_at: datetime
    result: PictureResult | None = None
    error: Problem | None = None
    timings: Timings = Timings()
    model: Model | None = None
    warnings: list[str] = []
