"""The straightforward form of the network, to compare ours with: in every step it computes queries, keys
and values of all three token sets and throws two thirds of the result away. Same weights, same numbers.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from model.attention import PlainCrossAttention, States, Wiring
from model.checkpoint import Checkpoint, reference_states
from model.conditioning import Conditioning, EncodedImage, encode_images, sample_posterior
from model.samplers import scheduler_for
from model.sampling import Noise, draw_noise, predict
from model.task import FaceTask


class StraightforwardSelfAttention(AttnProcessor2_0):
    """Stock self-attention over [own, source, driving] tokens, cut to the UNet's own afterwards."""

    def __init__(self, read_layer: str) -> None:
        super().__init__()
        self.read_layer = read_layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  None in self-attention
        attention_mask: Tensor | None = None,  # noqa: ARG002  None in self-attention
        *,
        references: tuple[States, States],
    ) -> Tensor:
        """Attend among all tokens of the row; `references` are source and driving states, row by row."""
        source, driving = (states[self.read_layer] for states in references)
        joined = torch.cat([hidden_states, source, driving], dim=1)
        attended: Tensor = super().__call__(attn, joined)
        return attended[:, : hidden_states.shape[1]]


def install_straightforward(unet: UNet2DConditionModel, wiring: Wiring) -> None:
    """Make `unet` compute the straightforward way."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            is_self = name.endswith(".attn1")
            module.set_processor(
                StraightforwardSelfAttention(wiring.read_by(name)) if is_self else PlainCrossAttention()
            )


@torch.inference_mode()
def straightforward_conditioning(
    checkpoint: Checkpoint,
    source: EncodedImage,
    driving: EncodedImage,
    noise: Noise,
    *,
    degree: float,
) -> Conditioning:
    """Both rows in one batch, equations 1 and 2 written out; a swap has degree 0."""
    source_latents = sample_posterior(checkpoint, source, noise.source_posterior).to(checkpoint.dtype)
    driving_latents = sample_posterior(checkpoint, driving, noise.driving_posterior).to(checkpoint.dtype)
    moved_token = (1 - degree) * source.token
    tokens = torch.cat([torch.zeros_like(moved_token), moved_token])
    latents = torch.cat([torch.zeros_like(source_latents), source_latents])
    states = reference_states(checkpoint.referencenet, latents, tokens)
    source_states = {
        layer: torch.stack([rows[0], (1 - degree) * rows[1] + degree * rows[0]])
        for layer, rows in states.items()
    }
    driving_states = {
        layer: rows.repeat(2, 1, 1)
        for layer, rows in reference_states(
            checkpoint.conditioning_referencenet, driving_latents, driving.token
        ).items()
    }
    references: Any = (source_states, driving_states)
    context = torch.cat([tokens, driving.token.repeat(2, 1, 1)], dim=1)
    return Conditioning(context=context, references=references)


@torch.inference_mode()
def straightforward_latents(checkpoint: Checkpoint, task: FaceTask) -> Tensor:
    """Sample one face the straightforward way; returns its final latents. Changes the checkpoint's UNet."""
    install_straightforward(checkpoint.unet, checkpoint.properties.wiring)
    generator = torch.Generator().manual_seed(task.seed)
    noise = draw_noise(checkpoint, generator)
    encoded = [encode_images(checkpoint, [image])[0] for image in (task.source, task.driving) if image]
    degree = 0 if task.source else task.degree
    conditioning = straightforward_conditioning(checkpoint, encoded[0], encoded[-1], noise, degree=degree)
    scheduler = scheduler_for(checkpoint.scheduler, task.steps, task.sampler)
    latents: Tensor = (
        noise.initial.to(checkpoint.device, checkpoint.latent_dtype) * scheduler.init_noise_sigma
    )
    for timestep in scheduler.timesteps:
        rows = latents.expand(2, -1, -1, -1)
        unconditional, conditional = predict(checkpoint, conditioning, rows, timestep.expand(2))[:, None]
        scale = task.guidance_scale
        v = (1 - scale) * unconditional + scale * conditional if scale > 1 else conditional
        latents = scheduler.step(v, timestep, latents, generator=generator).prev_sample
    return latents
