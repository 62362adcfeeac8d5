"""Prints what a step of training at full size holds in memory, counted on networks without storage.

    python -m bench.training

The weights are never made: the networks lie on torch's meta device. Activations are left out; with gradient
checkpointing they are some gigabytes more at 512 pixels.
"""

import torch
from diffusers import UNet2DConditionModel

from model.attention import Positions, Wiring
from model.random_checkpoint import FULL
from model.training.networks import Networks, Trained

GIGA = 1e9
FLOAT32 = 4


def main() -> None:
    """Count parameters, and print the gigabytes of each thing that is held."""
    with torch.device("meta"):
        unet, source, driving = (UNet2DConditionModel.from_config(FULL.unet) for _ in range(3))
        networks = Networks(unet, source, driving, Wiring.FIRST_OF_BLOCK, Positions.NONE)
    networks.choose(Trained.AS_PUBLISHED)
    every = sum(parameter.numel() for parameter in networks.parameters())
    moving = sum(parameter.numel() for parameter in networks.moving())
    held = {
        "weights of the three networks": every,
        "gradients of what is trained": moving,
        "AdamW's two moments": 2 * moving,
        "average of the trained weights": moving,
    }
    print(f"{every / 1e6:,.0f} M parameters, {moving / 1e6:,.0f} M of them trained; float32:")
    for name, count in held.items():
        print(f"  {name:32} {count * FLOAT32 / GIGA:6.1f} GB")
    print(f"  {'together':32} {sum(held.values()) * FLOAT32 / GIGA:6.1f} GB")


if __name__ == "__main__":
    main()
