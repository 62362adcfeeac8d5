"""The parts of a checkpoint that diffusion training leaves as they are: they encode its pictures.

A folder with `vae`, `image_encoder`, `feature_extractor` and `scheduler` comes before (`codec`, `encoder`
make such parts for rendered portraits); the data goes through them, and `export` copies them into the
checkpoint.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Generator, Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from model.autoencoder import Autoencoder, decode, encode
from model.checkpoint import load_autoencoder
from model.errors import TrainingError
from model.training.config import FromCheckpoint, FromConfig, FromStableDiffusion, Start

ROWS = 64  # encoded at once


@dataclass(frozen=True)
class Folders:
    """Where the parts lie."""

    vae: Path
    image_encoder: Path
    feature_extractor: Path
    scheduler: Path

    @classmethod
    def of(cls, start: Start) -> "Folders":
        """Return the folders that a run's start names. Raises TrainingError where one is missing."""
        if not isinstance(start, FromStableDiffusion):
            parts = start.parts if isinstance(start, FromConfig) else start.folder
            names = ("vae", "image_encoder", "feature_extractor", "scheduler")
            folders = cls(*(parts / name for name in names))
            if isinstance(start, FromCheckpoint) and start.vae is not None:
                folders = replace(folders, vae=start.vae)
        else:
            folders = cls(
                start.folder / "vae", start.image_encoder, start.feature_extractor, start.folder / "scheduler"
            )
        for folder in (folders.vae, folders.image_encoder, folders.feature_extractor, folders.scheduler):
            if not folder.is_dir():
                raise TrainingError(f"{folder}: there is no such folder")
        return folders


@dataclass(frozen=True)
class Parts:
    """The loaded parts, frozen, on one device."""

    vae: Autoencoder
    image_encoder: CLIPVisionModel
    feature_extractor: CLIPImageProcessorPil
    scheduler: DDPMScheduler

    @classmethod
    def load(cls, folders: Folders, device: torch.device | str = "cpu") -> "Parts":
        """Load them in float32.

        Raises TrainingError where the scheduler does not predict v, CheckpointError where the vae is not
        whole.
        """
        scheduler = DDPMScheduler.from_pretrained(folders.scheduler)
        if scheduler.config.prediction_type != "v_prediction":
            raise TrainingError(
                f"{folders.scheduler}: prediction_type is {scheduler.config.prediction_type!r}, training "
                "needs 'v_prediction'"
            )
        vae = load_autoencoder(folders.vae, torch.float32)
        encoder = CLIPVisionModel.from_pretrained(folders.image_encoder, dtype=torch.float32)
        return cls(
            vae.requires_grad_(requires_grad=False).eval().to(device),
            encoder.requires_grad_(requires_grad=False).eval().to(device),
            CLIPImageProcessorPil.from_pretrained(folders.feature_extractor),
            scheduler,
        )

    @torch.no_grad()
    def encode(self, pictures: NDArray[np.uint8], generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Return latents (n, channels, height, width) and tokens (n, width) of pictures (n, h, w, 3).

        The latents are drawn from the posterior with `generator`, or are its mean where that is None.
        """
        encoded = [self._encode(pictures[i : i + ROWS], generator) for i in range(0, len(pictures), ROWS)]
        return torch.cat([latents for latents, _ in encoded]), torch.cat([tokens for _, tokens in encoded])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels (n, 3, height, width) in 0..1."""
        return torch.cat([decode(self.vae, some) for some in torch.split(latents.to(self.vae.device), ROWS)])

    def _encode(self, pictures: NDArray[np.uint8], generator: Generator | None) -> tuple[Tensor, Tensor]:
        features = self.feature_extractor(images=list(pictures), return_tensors="pt").pixel_values
        tokens = self.image_encoder(features.to(self.image_encoder.device)).pooler_output
        pixels = torch.from_numpy(pictures.copy()).movedim(-1, 1).float() / 127.5 - 1.0
        mean, deviation = encode(self.vae, pixels.to(self.vae.device))
        if generator is not None:
            mean = mean + deviation * torch.randn(mean.shape, generator=generator).to(mean.device)
        return mean * self.vae.config.scaling_factor, tokens
