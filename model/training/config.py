"""What a training run is: one JSON file, read once; the command line (`cli.train`) names it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.attention import Positions, Wiring
from model.errors import TrainingError
from model.training.networks import Trained


class Part(BaseModel):
    """A part of the config: frozen, and no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rendered(Part):
    """Portraits of the renderer: groups of `side` identities by `side` sets of attributes."""

    kind: Literal["rendered"]
    pool: Path
    seed: int = 1
    held_out_seed: int = 2
    side: int = Field(default=6, ge=2, le=32)
    pixels: int = Field(default=64, ge=16, le=2048)
    groups: int = Field(ge=1)
    held_out_groups: int = Field(ge=1)
    groups_per_step: int = Field(default=1, ge=1)
    same_picture: bool = True
    """Whether a group's rows whose source, driving picture and truth are one are trained on."""
    eyes: float = Field(default=1.0, gt=0)
    """What an error counts in the latents that show an eye; 1 everywhere else."""


class Stage(Part):
    """Files of triplets that are trained on up to a step, None for ever."""

    until: int | None = Field(default=None, ge=1)
    files: tuple[Path, ...] = Field(min_length=1)


class Listed(Part):
    """Pictures in files, listed as JSON lines; the curriculum's stages follow each other."""

    kind: Literal["listed"]
    stages: tuple[Stage, ...] = Field(min_length=1)
    held_out: Path
    pixels: int = Field(default=512, ge=16, le=2048)
    triplets_per_step: int = Field(default=1, ge=1)
    same_picture_share: float = Field(default=0.0, ge=0, le=1)
    """The share of triplets whose truth is source and driving picture too."""


class FromConfig(Part):
    """Random networks of a stock config. `parts` has the folders that do not train."""

    kind: Literal["config"]
    parts: Path
    unet: dict[str, Any]


class FromStableDiffusion(Part):
    """All three networks start as the `unet` of a Stable Diffusion folder; vae and scheduler are taken from
    there.

    `image_encoder` is a folder with the image encoder, and `feature_extractor` one with its preprocessor; the
    encoder's width must be the UNet's cross-attention width.
    """

    kind: Literal["stable-diffusion"]
    folder: Path
    image_encoder: Path
    feature_extractor: Path


class FromCheckpoint(Part):
    """The averaged networks of an earlier run, as it exported them, and the parts beside them.

    Wiring and positions must be the checkpoint's. `vae` is the folder of another one, whose latents include
    the checkpoint's: more main components of the same patches.
    """

    kind: Literal["checkpoint"]
    folder: Path
    vae: Path | None = None


Start = Annotated[FromConfig | FromStableDiffusion | FromCheckpoint, Field(discriminator="kind")]


class Optimization(Part):
    """AdamW for all, or Muon for the matrices inside the networks where `muon_rate` is set."""

    rate: float = Field(default=1e-5, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    muon_rate: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=500, ge=0)
    cooldown_from: int | None = Field(default=None, ge=0)
    """From here the rates fall linearly to nothing at `steps`; None keeps them, for a run with an open end.
    """
    accumulate: int = Field(default=1, ge=1)
    largest_gradient: float | None = Field(default=1.0, gt=0)
    averaging: float = Field(default=0.9999, ge=0, lt=1)
    """Decay of the average of the weights a step; early in a run it averages less."""


class Reports(Part):
    """How often, in steps, something is written."""

    log: int = Field(default=10, ge=1)
    validate_every: int = Field(default=1000, ge=1)
    save: int = Field(default=1000, ge=1)
    save_minutes: float | None = Field(default=None, gt=0)


class TrainingConfig(Part):
    """A training run."""

    name: str = Field(min_length=1)
    seed: int = 0
    steps: int = Field(ge=1)
    data: Annotated[Rendered | Listed, Field(discriminator="kind")]
    start: Start
    trained: Trained
    wiring: Wiring
    positions: Positions = Positions.NONE
    unconditional: float = Field(default=0.1, ge=0, le=1)
    draws: int = Field(default=1, ge=1)
    terminal: float = Field(default=0.0, ge=0, le=1)
    timestep_power: float = Field(default=1.0, gt=0)
    latent_weights: tuple[float, ...] | None = None
    """The loss's weight of each latent channel; None is 1 for all."""
    optimization: Optimization = Optimization()
    gradient_checkpointing: bool = False
    reports: Reports = Reports()


def read_config(file: Path) -> TrainingConfig:
    """Read a run's config. Raises TrainingError, naming the field, where it is not one."""
    try:
        return TrainingConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{file}: {place or 'the file'}: {first['msg']}") from error
