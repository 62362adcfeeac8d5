"""The fields of a submission: what may be sent, and what stands where nothing was: the checkpoint's own
defaults. `service.submission` has the files beside them.
"""

import secrets
from typing import Annotated

from fastapi import Depends, Form, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict

from jobs.contract import SEEDS, Defaults, Faces, Kind, Parameters, PictureFormat, Sampler
from service.schemas import never_null

USUAL_STEPS = {Sampler.DDPM: 200, Sampler.DDIM: 50, Sampler.DPMPP_2M: 25, Sampler.UNIPC: 20}
"""Steps where a request names another sampler than the checkpoint's and no steps."""

Degree = Annotated[
    float | None,
    Form(
        ge=0,
        le=2,
        allow_inf_nan=False,
        json_schema_extra=never_null,
        description="Degree of anonymization; above 1.5 the job carries a warning. Default: the "
        "checkpoint's, 1.25 for the published one.",
    ),
]
Seed = Annotated[
    int | None,
    Form(
        ge=0,
        lt=SEEDS,
        json_schema_extra=never_null,
        description="Which new face. Default: drawn at random, and echoed.",
    ),
]
Steps = Annotated[
    int | None,
    Form(
        ge=1,
        le=1000,
        json_schema_extra=never_null,
        description="Denoising steps. Default: the checkpoint's for its own sampler, 200 for the published "
        "one; for another sampler "
        + ", ".join(f"{sampler} {steps}" for sampler, steps in USUAL_STEPS.items())
        + ".",
    ),
]
GuidanceScale = Annotated[
    float | None,
    Form(
        ge=0,
        le=20,
        allow_inf_nan=False,
        json_schema_extra=never_null,
        description="Classifier-free guidance; 1 or less is off. Default: the checkpoint's, 4.0 for the "
        "published one.",
    ),
]
SamplerField = Annotated[
    Sampler | None,
    Form(
        json_schema_extra=never_null,
        description="How the noise is removed; `ddpm` is the paper's, the others need fewer steps. Default: "
        "the checkpoint's, `ddpm` for the published one.",
    ),
]
FacesField = Annotated[
    Faces,
    Form(
        description="Every face found, the `largest`, or `aligned`: the whole picture is one face, aligned "
        "as in FFHQ."
    ),
]
FormatField = Annotated[
    PictureFormat | None,
    Form(
        json_schema_extra=never_null,
        description="Of the result. Default: as sent where we write it, else PNG.",
    ),
]
Reference = Annotated[
    str | None,
    Form(max_length=200, json_schema_extra=never_null, description="A string of the caller's, echoed."),
]


class Fields(BaseModel):
    """The fields as sent; None for each that was not."""

    model_config = ConfigDict(frozen=True)

    d: float | None = None
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    sampler: Sampler | None
    faces: Faces
    format: PictureFormat | None
    reference: str | None

    def parameters(self, kind: Kind, defaults: Defaults, written: PictureFormat) -> Parameters:
        """Return what the job is to be made with; `written` is the format that stands where none was sent."""
        sampler = self.sampler or defaults.sampler
        usual_steps = defaults.steps if sampler is defaults.sampler else USUAL_STEPS[sampler]
        degree = defaults.d if self.d is None else self.d
        return Parameters(
            d=degree if kind is Kind.ANONYMIZE else None,
            seed=secrets.randbelow(SEEDS) if self.seed is None else self.seed,
            steps=usual_steps if self.steps is None else self.steps,
            guidance_scale=defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            sampler=sampler,
            faces=self.faces,
            format=written,
        )


async def _refuse_empty(request: Request) -> None:
    """Refuse a field sent empty, which FastAPI takes for one not sent: a caller's `-F d=$D` without a D.

    Raises RequestValidationError; `reference` may be empty.
    """
    form = await request.form()
    empty = [name for name in Fields.model_fields if name != "reference" and form.get(name) == ""]
    if empty:
        reason = "The field is empty; leave it out for its default"
        raise RequestValidationError(
            [{"type": "empty", "loc": ("body", name), "msg": reason, "input": ""} for name in empty]
        )


async def _sent_fields(
    _: Annotated[None, Depends(_refuse_empty)],
    seed: Seed = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    sampler: SamplerField = None,
    faces: FacesField = Faces.ALL,
    format: FormatField = None,  # noqa: A002  the API's name
    reference: Reference = None,
) -> Fields:
    return Fields(
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        faces=faces,
        format=format,
        reference=reference,
    )


SentFields = Annotated[Fields, Depends(_sent_fields)]
"""The fields that every kind of job has."""
