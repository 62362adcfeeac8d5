"""Between pixels and latents, with either kind of stock autoencoder a checkpoint may have.

`model.conditioning` and `model.training` encode with it, `model.sampling` decodes. `AutoencoderKL` gives a
posterior to draw from, `AutoencoderDC` the latents themselves: a posterior without spread.
"""

from typing import NamedTuple, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch import Tensor

Autoencoder: TypeAlias = AutoencoderKL | AutoencoderDC


class Posterior(NamedTuple):
    """Mean and standard deviation of a picture's latents, (rows, channels, height, width), not yet scaled."""

    mean: Tensor
    std: Tensor


def encode(vae: Autoencoder, pixels: Tensor) -> Posterior:
    """Encode pixels (rows, 3, height, width) in -1..1."""
    encoded = vae.encode(pixels)
    if isinstance(vae, AutoencoderDC):
        return Posterior(encoded.latent, torch.zeros_like(encoded.latent))
    return Posterior(encoded.latent_dist.mean, encoded.latent_dist.std)


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Decode scaled latents to pixels (rows, 3, height, width) in 0..1."""
    decoded: Tensor = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    return (decoded.float() / 2 + 0.5).clamp(0, 1)


def reduction(vae: Autoencoder) -> int:
    """Return how many pixels a latent's side stands for."""
    channels = (
        vae.config.encoder_block_out_channels
        if isinstance(vae, AutoencoderDC)
        else vae.config.block_out_channels
    )
    return int(2 ** (len(channels) - 1))
