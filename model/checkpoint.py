"""Loads a checkpoint folder: the seven parts, strictly, each with the class and shapes the model needs.

What comes out, a `Checkpoint`, is shared by every run and never changed by one (`model.conditioning`
and `model.sampling` take it as their first argument).
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel
from transformers.utils.logging import disable_progress_bar

from model.attention import Positions, States, Wiring, install_capture, install_joining
from model.autoencoder import Autoencoder, reduction
from model.errors import CheckpointError
from model.task import Sampler

PROPERTIES_FILE = "checkpoint.json"
WEIGHTS_FILES = {
    UNet2DConditionModel: "diffusion_pytorch_model.safetensors",
    AutoencoderKL: "diffusion_pytorch_model.safetensors",
    AutoencoderDC: "diffusion_pytorch_model.safetensors",
    CLIPVisionModel: "model.safetensors",
}


class Precision(StrEnum):
    """The number format the networks compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of this precision."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.value]


class Defaults(BaseModel):
    """What a checkpoint is best used with; as published unless its `checkpoint.json` says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    d: float = Field(default=1.25, ge=0, le=2)
    sampler: Sampler = Sampler.DDPM
    steps: int = Field(default=200, ge=1, le=1000)
    guidance_scale: float = Field(default=4.0, ge=0, le=20)

    def steps_of(self, sampler: Sampler) -> int:
        """Return the steps to take with a sampler: the checkpoint's with its own, else the usual ones."""
        return self.steps if sampler is self.sampler else sampler.usual_steps


class Properties(BaseModel):
    """What `checkpoint.json` in a checkpoint folder says about it; the published weights have no such file.

    `demonstration` marks weights that are too small to be meant for photos of people: every answer made
    with them says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    revision: str | None = None
    wiring: Wiring = Wiring.FIRST_OF_BLOCK
    positions: Positions = Positions.NONE
    demonstration: bool = False
    defaults: Defaults = Defaults()


@dataclass(frozen=True)
class Checkpoint:
    """The loaded networks of one checkpoint folder, in evaluation mode on one device."""

    folder: Path
    properties: Properties
    unet: UNet2DConditionModel
    referencenet: UNet2DConditionModel
    conditioning_referencenet: UNet2DConditionModel
    vae: Autoencoder
    image_encoder: CLIPVisionModel
    feature_extractor: CLIPImageProcessorPil
    scheduler: DDPMScheduler
    dtype: torch.dtype
    device: torch.device

    @property
    def name(self) -> str:
        """The name the checkpoint gives itself, or that of its folder."""
        return self.properties.name or self.folder.name

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """The shape of one face's latents: (1, channels, height, width)."""
        size = self.unet.config.sample_size
        return (1, self.unet.config.in_channels, size, size)

    @property
    def latent_dtype(self) -> torch.dtype:
        """What latents and noise are kept in: float32 at least, whatever the networks compute in."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def resolution(self) -> int:
        """The side, in pixels, of the square faces the model takes and makes."""
        return int(self.unet.config.sample_size * reduction(self.vae))

    @cached_property
    def unconditional_states(self) -> States:
        """`S_uncond` of eq. 2: the source states of zero latents and a zero token; no image enters."""
        width = self.unet.config.cross_attention_dim
        latents = torch.zeros(self.latent_shape, dtype=self.dtype, device=self.device)
        token = torch.zeros((1, 1, width), dtype=self.dtype, device=self.device)
        return reference_states(self.referencenet, latents, token)


@torch.inference_mode()
def reference_states(referencenet: UNet2DConditionModel, latents: Tensor, token: Tensor) -> States:
    """Run a ReferenceNet once, at timestep 0, and return the inputs of its self-attention layers.

    `latents` (rows, channels, height, width) and `token` (rows, 1, width) are one image a row.

    The latents go in as channels-last, the layout the reference results were made in: the zero latents of
    `S_uncond` are constant fields, where float32 group norm differs by 3e-5 between the two layouts.
    """
    states: States = {}
    latents = latents.contiguous(memory_format=torch.channels_last)
    referencenet(latents, 0, encoder_hidden_states=token, cross_attention_kwargs={"states": states})
    return states


def load_checkpoint(
    folder: Path | str, *, precision: Precision = Precision.FLOAT32, device: str = "cpu"
) -> Checkpoint:
    """Load the seven parts of `folder` onto `device` ("cpu", "cuda", "cuda:1", ...).

    A part is read straight into its final precision, so that no network is held twice. A VAE whose
    config says `force_upcast` stays in float32, since it overflows or bands in 16 bits.

    Raises `CheckpointError`, naming file and reason, for a part that is missing, has the wrong class,
    the wrong shapes, too few or too many tensors, or a scheduler that does not predict v.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    disable_progress_bar()
    properties = read_properties(folder)
    dtype = precision.dtype
    unet = _network(folder / "unet", dtype)
    referencenet = _network(folder / "referencenet", dtype)
    conditioning_referencenet = _network(folder / "conditioning_referencenet", dtype)
    vae = load_autoencoder(folder / "vae", dtype)
    _expect_class(folder / "image_encoder", "config.json", "model_type", {"clip_vision_model", "clip"})
    image_encoder = _weights(CLIPVisionModel, folder / "image_encoder", dtype)
    install_joining(unet, properties.positions)
    install_capture(referencenet, properties.positions)
    install_capture(conditioning_referencenet, properties.positions)
    checkpoint = Checkpoint(
        folder=folder,
        properties=properties,
        unet=unet.to(device),
        referencenet=referencenet.to(device),
        conditioning_referencenet=conditioning_referencenet.to(device),
        vae=vae.to(device),
        image_encoder=image_encoder.to(device),
        feature_extractor=_feature_extractor(folder / "feature_extractor"),
        scheduler=_scheduler(folder / "scheduler"),
        dtype=dtype,
        device=torch.device(device),
    )
    _check_fit(checkpoint)
    return checkpoint


def read_properties(folder: Path) -> Properties:
    """Read `checkpoint.json`; a folder without one has the properties of the published weights.

    Raises `CheckpointError` where the file is not JSON, or names a property or value there is not.
    """
    file = folder / PROPERTIES_FILE
    if not file.exists():
        return Properties()
    try:
        return Properties.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{file}: {place or 'the file'}: {first['msg']}") from error


def checkpoint_revision(folder: Path) -> str:
    """Return the revision a checkpoint gives itself, or the first 12 digits of a SHA-256 over its files.

    Its card, `*.md`, does not count: what it says of the weights comes after them.
    """
    given = read_properties(folder).revision
    if given:
        return given
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def _config(part: Path, name: str) -> dict[str, Any]:
    file = part / name
    if not part.is_dir():
        raise CheckpointError(f"{part}: this part of the checkpoint is missing")
    if not file.is_file():
        raise CheckpointError(f"{file}: the file is missing")
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return config


def _network(part: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    # "ReferenceNetModel" is what the published ReferenceNets call the stock structure.
    _expect_class(part, "config.json", "_class_name", {"UNet2DConditionModel", "ReferenceNetModel"})
    return _weights(UNet2DConditionModel, part, dtype)


def load_autoencoder(part: Path, dtype: torch.dtype) -> Autoencoder:
    """Load a `vae` folder strictly, in float32 where its numbers need that.

    Raises CheckpointError where it is no autoencoder that can be used, or not whole.
    """
    config = _expect_class(part, "config.json", "_class_name", {"AutoencoderKL", "AutoencoderDC"})
    if config["_class_name"] == "AutoencoderDC":
        # Its linear transforms carry offsets that 16 bits round off.
        dc: AutoencoderDC = _weights(AutoencoderDC, part, torch.float32)
        return dc
    kl: AutoencoderKL = _weights(
        AutoencoderKL, part, torch.float32 if config.get("force_upcast", True) else dtype
    )
    return kl


def _expect_class(part: Path, name: str, field: str, classes: set[str]) -> dict[str, Any]:
    config = _config(part, name)
    found = config.get(field)
    if found not in classes:
        expected = " or ".join(sorted(classes))
        raise CheckpointError(f"{part / name}: {field} is {found!r}, this part must be {expected}")
    return config


def _weights(cls: Any, part: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401  the libraries are untyped
    """Load one network strictly: the libraries fill what a file lacks with random numbers, and only tell."""
    if not (part / WEIGHTS_FILES[cls]).is_file():
        raise CheckpointError(f"{part / WEIGHTS_FILES[cls]}: the file is missing")
    try:
        network, report = cls.from_pretrained(
            part,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=True,
            ignore_mismatched_sizes=True,  # they are in the report, with their shapes
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{part / WEIGHTS_FILES[cls]}: {_one_line(error)}") from error
    for trouble in ("missing", "unexpected", "mismatched"):
        tensors = sorted(_words(tensor) for tensor in report[f"{trouble}_keys"])
        if tensors:
            raise CheckpointError(
                f"{part / WEIGHTS_FILES[cls]}: {len(tensors)} {trouble} tensor(s), the first is {tensors[0]}"
            )
    network.requires_grad_(False)
    return network.eval()


def _words(tensor: str | tuple[object, ...]) -> str:
    """Name a tensor; a mismatched one comes with the shapes of file and network."""
    return tensor if isinstance(tensor, str) else " ".join(str(part) for part in tensor)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _feature_extractor(part: Path) -> CLIPImageProcessorPil:
    _expect_class(
        part,
        "preprocessor_config.json",
        "image_processor_type",
        {"CLIPImageProcessor", "CLIPImageProcessorPil", "CLIPFeatureExtractor"},
    )
    extractor: CLIPImageProcessorPil = CLIPImageProcessorPil.from_pretrained(part, local_files_only=True)
    return extractor


def _scheduler(part: Path) -> DDPMScheduler:
    """Read the noise schedule; whichever scheduler wrote it, the paper samples with DDPM."""
    file = part / "scheduler_config.json"
    prediction = _config(part, file.name).get("prediction_type")
    if prediction != "v_prediction":
        raise CheckpointError(f"{file}: prediction_type is {prediction!r}, the model predicts 'v_prediction'")
    scheduler: DDPMScheduler = DDPMScheduler.from_pretrained(part, local_files_only=True)
    return scheduler


def _check_fit(checkpoint: Checkpoint) -> None:
    """Check that the parts belong together, before a run finds out with a message about matrices."""
    unet, vae, encoder = checkpoint.unet.config, checkpoint.vae.config, checkpoint.image_encoder.config
    for name in ("referencenet", "conditioning_referencenet"):
        file = checkpoint.folder / name / "config.json"
        other = getattr(checkpoint, name).config
        for field in ("block_out_channels", "cross_attention_dim", "in_channels", "sample_size"):
            if other[field] != unet[field]:
                raise CheckpointError(f"{file}: {field} is {other[field]}, the UNet has {unet[field]}")
    if vae.latent_channels != unet.in_channels:
        raise CheckpointError(
            f"{checkpoint.folder / 'vae' / 'config.json'}: latent_channels is {vae.latent_channels}, "
            f"the UNet takes {unet.in_channels}"
        )
    if encoder.hidden_size != unet.cross_attention_dim:
        raise CheckpointError(
            f"{checkpoint.folder / 'image_encoder' / 'config.json'}: hidden_size is {encoder.hidden_size}, "
            f"the UNet's cross_attention_dim is {unet.cross_attention_dim}"
        )
