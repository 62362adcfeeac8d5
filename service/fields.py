"""The fields of a submission: what may be sent, and what stands where nothing was: the checkpoint's own
defaults. `service.submission` has the files beside them.
"""

import secrets
from typing import Annotated

from fastapi import Depends, Form
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from jobs.contract import Defaults, Faces, Kind, Parameters, PictureFormat, Sampler

MAX_SEED = 2**63 - 1
USUAL_STEPS = {Sampler.DDPM: 200, Sampler.DDIM: 50, Sampler.DPMPP_2M: 25, Sampler.UNIPC: 20}
"""Steps where a request names another sampler than the checkpoint's and no steps."""

# What may be left out is not in the schema as null: no form can hold one.
Degree = Annotated[
    Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | SkipJsonSchema[None],
    Form(
        description="Degree of anonymization; above 1.5 the job carries a warning. Default: the "
        "checkpoint's, 1.25 for the published one.",
    ),
]
Seed = Annotated[
    Annotated[int, Field(ge=0, le=MAX_SEED)] | SkipJsonSchema[None],
    Form(description="Which new face. Default: drawn at random, and echoed."),
]
Steps = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | SkipJsonSchema[None],
    Form(
        description="Denoising steps. Default: the checkpoint's for its own sampler, 200 for the published "
        "one; for another sampler "
        + ", ".join(f"{sampler} {steps}" for sampler, steps in USUAL_STEPS.items())
        + ".",
    ),
]
GuidanceScale = Annotated[
    Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] | SkipJsonSchema[None],
    Form(
        description="Classifier-free guidance; 1 or less is off. Default: the checkpoint's, 4.0 for the "
        "published one.",
    ),
]
SamplerField = Annotated[
    Sampler | SkipJsonSchema[None],
    Form(
        description="How the noise is removed; `ddpm` is the paper's, the others need fewer steps. Default: "
        "the checkpoint's, `ddpm` for the published one."
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
    PictureFormat | SkipJsonSchema[None],
    Form(description="Of the result. Default: as sent where we write it, else PNG."),
]
Reference = Annotated[
    Annotated[str, Field(max_length=200)] | SkipJsonSchema[None],
    Form(description="A string of the caller's, echoed."),
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
            seed=secrets.randbelow(MAX_SEED + 1) if self.seed is None else self.seed,
            steps=usual_steps if self.steps is None else self.steps,
            guidance_scale=defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale,
            sampler=sampler,
            faces=self.faces,
            format=written,
        )


def _sent_fields(
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
