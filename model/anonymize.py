"""Anonymizes or swaps one aligned face: the whole way from an image to an image.

The five stages are `draw_noise`, `encode_image`, `*_conditioning`, `denoise` and `decode_face`; the command
line (`cli`) and the worker (`worker.run`) call in here.
"""

from collections.abc import Callable

import torch
from PIL import Image

from model.checkpoint import Checkpoint
from model.conditioning import (
    Conditioning,
    anonymize_conditioning,
    encode_image,
    sample_posterior,
    swap_conditioning,
)
from model.errors import ParameterError
from model.sampling import Noise, OnStep, decode_face, denoise, draw_noise

DEFAULT_DEGREE = 1.25
DEFAULT_STEPS = 200
DEFAULT_GUIDANCE_SCALE = 4.0
MAX_DEGREE = 2.0
MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_GUIDANCE_SCALE = 20.0


def anonymize_face(
    checkpoint: Checkpoint,
    image: Image.Image,
    *,
    seed: int,
    degree: float = DEFAULT_DEGREE,
    steps: int = DEFAULT_STEPS,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    on_step: OnStep | None = None,
) -> Image.Image:
    """Return another face with the image's expression, pose, gaze and background.

    `image` is a square face aligned as in FFHQ, of any size; the result has the model's resolution.
    `degree` (0 to 2) is the distance from the original identity, 1.2 to 1.3 recommended. The same seed
    (0 to 2^63-1), image and parameters give the same bytes. Without guidance (`guidance_scale` <= 1)
    a step costs half. Raises `ParameterError`, and whatever `on_step` raises.
    """
    _check_range("d", degree, 0, MAX_DEGREE)

    def condition(noise: Noise) -> Conditioning:
        encoded = encode_image(checkpoint, image)
        return anonymize_conditioning(
            checkpoint,
            encoded,
            sample_posterior(checkpoint, encoded, noise.source_posterior),
            sample_posterior(checkpoint, encoded, noise.driving_posterior),
            degree=degree,
            guided=guidance_scale > 1,
        )

    return _make_face(checkpoint, condition, seed, steps, guidance_scale, on_step)


def swap_face(
    checkpoint: Checkpoint,
    source: Image.Image,
    driving: Image.Image,
    *,
    seed: int,
    steps: int = DEFAULT_STEPS,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    on_step: OnStep | None = None,
) -> Image.Image:
    """Return the identity of `source` with everything else of `driving`; otherwise as `anonymize_face`."""

    def condition(noise: Noise) -> Conditioning:
        encoded_source = encode_image(checkpoint, source)
        encoded_driving = encode_image(checkpoint, driving)
        return swap_conditioning(
            checkpoint,
            encoded_source,
            encoded_driving,
            sample_posterior(checkpoint, encoded_source, noise.source_posterior),
            sample_posterior(checkpoint, encoded_driving, noise.driving_posterior),
            guided=guidance_scale > 1,
        )

    return _make_face(checkpoint, condition, seed, steps, guidance_scale, on_step)


@torch.inference_mode()
def _make_face(
    checkpoint: Checkpoint,
    condition: Callable[[Noise], Conditioning],
    seed: int,
    steps: int,
    guidance_scale: float,
    on_step: OnStep | None,
) -> Image.Image:
    _check_range("seed", seed, 0, MAX_SEED)
    _check_range("steps", steps, 1, MAX_STEPS)
    _check_range("guidance_scale", guidance_scale, 0, MAX_GUIDANCE_SCALE)
    generator = torch.Generator().manual_seed(seed)
    noise = draw_noise(checkpoint, generator)
    latents = denoise(
        checkpoint,
        condition(noise),
        noise.initial,
        generator,
        steps=steps,
        guidance_scale=guidance_scale,
        on_step=on_step,
    )
    return decode_face(checkpoint, latents)


def _check_range(name: str, number: float, lowest: float, highest: float) -> None:
    if not lowest <= number <= highest:
        raise ParameterError(f"{name} is {number}, it must be from {lowest} to {highest}")
