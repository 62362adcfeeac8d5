"""Makes a checkpoint folder with random weights: the small one that ships until a trained one does, and
one of full size for benchmarks. Run as `python -m model.random_checkpoint --help`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from model.checkpoint import PROPERTIES_FILE, Precision, Properties


@dataclass(frozen=True)
class Size:
    """The configs of the networks of one size."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    image_encoder: dict[str, Any]


SMALL = Size(
    unet={
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4),  # the number of heads, as SD 2.1 has it
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 64,
        "block_out_channels": (8, 16, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "norm_num_groups": 8,
    },
    image_encoder={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    },
)

FULL = Size(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    vae={
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    },
    image_encoder={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
)

SIZES = {"small": SMALL, "full": FULL}

# SD 2.1's noise schedule.
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def make_checkpoint(folder: Path, size: Size, *, dtype: torch.dtype, seed: int) -> None:
    """Write the seven parts and `checkpoint.json`, one network after the other in memory.

    The weights are torch's and transformers' own initialization under `seed`, stored as `dtype`.
    """
    torch.manual_seed(seed)
    for part in ("unet", "referencenet", "conditioning_referencenet"):
        _save(UNet2DConditionModel.from_config, size.unet, folder / part, dtype)
    _save(AutoencoderKL.from_config, size.vae, folder / "vae", dtype)
    _save(
        lambda config: CLIPVisionModel(CLIPVisionConfig(**config)),
        size.image_encoder,
        folder / "image_encoder",
        dtype,
    )
    pixels = size.image_encoder["image_size"]
    CLIPImageProcessorPil(
        size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
    ).save_pretrained(folder / "feature_extractor")
    DDPMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    properties = Properties(name="random", demonstration=True)
    (folder / PROPERTIES_FILE).write_text(properties.model_dump_json(indent=2, exclude_defaults=True) + "\n")


def _save(make: Any, config: dict[str, Any], part: Path, dtype: torch.dtype) -> None:  # noqa: ANN401
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        make(config).save_pretrained(part)
    finally:
        torch.set_default_dtype(default)


def main() -> None:
    """Write a random checkpoint from the command line."""
    parser = argparse.ArgumentParser(description="Write a checkpoint folder with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", type=Precision, choices=list(Precision), default=Precision.FLOAT32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    make_checkpoint(options.folder, SIZES[options.size], dtype=options.dtype.dtype, seed=options.seed)


if __name__ == "__main__":
    main()
