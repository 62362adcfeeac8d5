"""Sampling: from noise and a `Conditioning` to a face, by classifier-free guidance and the DDPM sampler.

Comes after `model.conditioning`; `model.anonymize` calls both. All latents here are float32, whatever the
networks compute in, and all randomness comes from one CPU generator, so that a seed gives the same noise
on every device.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Generator, Tensor

from model.autoencoder import decode
from model.checkpoint import Checkpoint
from model.conditioning import Conditioning

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all), from (0, N) to (N, N); raise `StoppedError` to stop the run."""


class Noise(NamedTuple):
    """The draws that come before the first step, each of the shape of the latents, float32 on the CPU."""

    source_posterior: Tensor
    driving_posterior: Tensor
    initial: Tensor


def draw_noise(checkpoint: Checkpoint, generator: Generator) -> Noise:
    """Draw in the published order; the sampler goes on with the same generator, one draw a step."""
    shape = checkpoint.latent_shape
    return Noise(*(torch.randn(shape, generator=generator) for _ in Noise._fields))


@torch.inference_mode()
def denoise(
    checkpoint: Checkpoint,
    conditioning: Conditioning,
    initial: Tensor,
    generator: Generator,
    *,
    steps: int,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> Tensor:
    """Run `steps` DDPM steps from `initial` noise (1, channels, height, width) to clean scaled latents.

    With one row of conditioning the guidance scale has no effect. Source of the sampler: Ho et al.,
    "Denoising Diffusion Probabilistic Models", 2020, in the v-parameterization of Salimans and Ho, 2022.
    """
    scheduler = scheduler_for(checkpoint, steps)
    latents: Tensor = initial.to(checkpoint.device, checkpoint.latent_dtype) * scheduler.init_noise_sigma
    for done, timestep in enumerate(scheduler.timesteps):
        if on_step:
            on_step(done, steps)
        v = guided_prediction(checkpoint, conditioning, latents, timestep, guidance_scale)
        latents = scheduler.step(v, timestep, latents, generator=generator).prev_sample
    if on_step:
        on_step(steps, steps)
    return latents


def scheduler_for(checkpoint: Checkpoint, steps: int) -> DDPMScheduler:
    """Return a sampler of the checkpoint's schedule, set to `steps` (1 to 1000) timesteps.

    Where the schedule spaces them "leading", diffusers rounds their distance down: 600 steps of 1000 would
    begin at 600, and 1000 at a timestep there is not. Ours are spread over the whole schedule, and the same
    as diffusers' where `steps` divides it (as 200, 25 and 8 do).
    """
    scheduler = copy.deepcopy(checkpoint.scheduler)
    if scheduler.config.timestep_spacing == "leading":
        trained = scheduler.config.num_train_timesteps
        spaced = [index * trained // steps for index in range(steps)]
        offset = min(scheduler.config.steps_offset, trained - 1 - spaced[-1])
        scheduler.set_timesteps(timesteps=[timestep + offset for timestep in reversed(spaced)])
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def guided_prediction(
    checkpoint: Checkpoint,
    conditioning: Conditioning,
    latents: Tensor,
    timestep: Tensor,
    guidance_scale: float,
) -> Tensor:
    """Predict v for `latents` (1, ...): `(1 - g) * v_uncond + g * v_cond`, or `v_cond` with a single row."""
    rows = conditioning.context.shape[0]
    same_in_each_row = latents.to(checkpoint.dtype).expand(rows, -1, -1, -1)
    v: Tensor = checkpoint.unet(
        same_in_each_row.contiguous(memory_format=torch.channels_last),
        timestep,
        encoder_hidden_states=conditioning.context,
        cross_attention_kwargs={"references": conditioning.references},
    ).sample.to(checkpoint.latent_dtype)
    if rows == 1:
        return v
    unconditional, conditional = v.chunk(2)
    return (1 - guidance_scale) * unconditional + guidance_scale * conditional


@torch.inference_mode()
def decode_face(checkpoint: Checkpoint, latents: Tensor) -> Image.Image:
    """Decode scaled latents (1, channels, height, width) to an RGB image of the model's resolution."""
    pixels = decode(checkpoint.vae, latents)[0].permute(1, 2, 0)  # (height, width, 3) in 0..1
    return Image.fromarray((pixels * 255).round().to(torch.uint8).cpu().numpy().astype(np.uint8))
