"""Makes the parts that encode rendered portraits: vae, image encoder, feature extractor and noise schedule.

The pool comes before; the diffusion training (`loop`) uses the folder and `export` copies it. The vae is
computed, the image encoder is trained.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch.optim import AdamW
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from model.training.codec import autoencoder, main_components
from model.training.encoder import Reader, Truth, standardize, truth_of
from model.training.optimizers import Muon
from model.training.pool import Pool

MEASURED = 100  # groups that components and token statistics are taken from
IMPORTANCE = 0.8  # a latent channel's loss is weighed by its deviation to this power
GROUPS_PER_STEP = 3
MUON_RATE, RATE = 0.01, 2e-3
WARMUP_STEPS, HELD = 50, 0.3
CONTRAST = 0.1

ENCODER = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 8,
    "hidden_act": "gelu",
}  # SD 2.1's schedule without a signal at its end (Lin et al., WACV 2024).
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}


def make_parts(
    folder: Path,
    pool: Pool,
    *,
    groups: int,
    steps: int,
    seed: int,
    channels: int,
    encoder: dict[str, Any] | None = None,
) -> list[float]:
    """Write the four parts into `folder`, from the first groups of a pool; return the weights of the loss.

    `steps` is what the image encoder is trained for; `encoder` replaces fields of its config.
    """
    measured = np.concatenate(
        [pool.group(index).reshape(-1, pool.pixels, pool.pixels, 3) for index in range(min(groups, MEASURED))]
    )
    components = main_components(measured, channels)
    autoencoder(components).save_pretrained(folder / "vae")
    config = {**ENCODER, "image_size": pool.pixels, **(encoder or {})}
    trained = train_encoder(config, pool, groups=groups, steps=steps, seed=seed)
    standardize(trained, torch.from_numpy(measured))
    trained.save_pretrained(folder / "image_encoder")
    CLIPImageProcessorPil(
        size={"shortest_edge": pool.pixels}, crop_size={"height": pool.pixels, "width": pool.pixels}
    ).save_pretrained(folder / "feature_extractor")
    DDPMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    importance = components.deviation**IMPORTANCE
    return [round(weight, 4) for weight in (importance / importance.mean()).tolist()]


def train_encoder(
    config: dict[str, Any], pool: Pool, *, groups: int, steps: int, seed: int
) -> CLIPVisionModel:
    """Return an image encoder trained for `steps` on the first groups of a pool."""
    torch.manual_seed(seed)
    identities = [truth_of(pool.identities(index)) for index in range(groups)]
    attributes = [truth_of(pool.attributes(index)) for index in range(groups)]
    reader = Reader(config, Truth.joined(identities), Truth.joined(attributes))
    inside = [
        parameter
        for name, parameter in reader.encoder.named_parameters()
        if parameter.ndim > 1 and "embed" not in name
    ]
    theirs = {id(parameter) for parameter in inside}
    others = [parameter for parameter in reader.parameters() if id(parameter) not in theirs]
    optimizers = (Muon(inside, MUON_RATE), AdamW(others, RATE, weight_decay=0.0))
    draw = np.random.default_rng(seed)
    shown = tqdm(range(steps), unit="step", disable=None)
    for step in shown:
        fall = min(1.0, (steps - step) / (steps * (1 - HELD)))
        factor = min(1.0, (step + 1) / WARMUP_STEPS) * fall
        for optimizer, rate in zip(optimizers, (MUON_RATE, RATE), strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        total = 0.0
        for index in draw.integers(groups, size=GROUPS_PER_STEP):
            portraits = torch.from_numpy(pool.group(int(index)).copy())
            regression, contrast = reader.loss(portraits, identities[index], attributes[index])
            loss = (regression + CONTRAST * contrast) / GROUPS_PER_STEP
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        shown.set_postfix(loss=f"{total:.3f}")
    return reader.encoder.eval()
