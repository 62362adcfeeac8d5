"""Sampling, step by step: the first noise, v for the rows of one UNet call, guidance, and the finished faces.

Comes after `model.conditioning`; `model.engine_batch` puts the steps together. All latents here are float32,
whatever the networks compute in, and all randomness of a face comes from its own CPU generator, so that a
seed gives the same noise on every device and in any company.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from model.autoencoder import decode
from model.checkpoint import Checkpoint
from model.conditioning import Conditioning


class Noise(NamedTuple):
    """The draws that come before the first step, each of the shape of the latents, float32 on the CPU."""

    source_posterior: Tensor
    driving_posterior: Tensor
    initial: Tensor


def draw_noise(checkpoint: Checkpoint, generator: Generator) -> Noise:
    """Draw in the published order; the sampler goes on with the same generator, one draw a step."""
    shape = checkpoint.latent_shape
    return Noise(*(torch.randn(shape, generator=generator) for _ in Noise._fields))


def predict(checkpoint: Checkpoint, conditioning: Conditioning, latents: Tensor, timesteps: Tensor) -> Tensor:
    """Predict v (rows, channels, height, width) in one call, each row at its own of `timesteps` (rows,)."""
    v: Tensor = checkpoint.unet(
        latents.to(checkpoint.dtype).contiguous(memory_format=torch.channels_last),
        timesteps,
        encoder_hidden_states=conditioning.context,
        cross_attention_kwargs={"references": conditioning.references},
    ).sample
    return v.to(checkpoint.latent_dtype, copy=True)  # a CUDA graph writes its next output to the same place


def guide(v: Sequence[Tensor], guidance_scale: float) -> Tensor:
    """Join the rows of one face: `(1 - g) * v_uncond + g * v_cond`, or `v_cond` where it is the only one."""
    if len(v) == 1:
        return v[0]
    unconditional, conditional = v
    return (1 - guidance_scale) * unconditional + guidance_scale * conditional


@torch.inference_mode()
def decode_faces(checkpoint: Checkpoint, latents: Tensor) -> list[Image.Image]:
    """Decode scaled latents (faces, channels, height, width) to RGB images of the model's resolution."""
    pixels = decode(checkpoint.vae, latents).permute(0, 2, 3, 1)  # (faces, height, width, 3) in 0..1
    faces = (pixels * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(face.astype(np.uint8)) for face in faces]
