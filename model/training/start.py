"""Where a run starts: random networks of a config, or three copies of a Stable Diffusion UNet."""

import torch
from diffusers import UNet2DConditionModel

from model.errors import TrainingError
from model.training.config import FromStableDiffusion, TrainingConfig
from model.training.networks import Networks, start_looking


def start_networks(config: TrainingConfig) -> Networks:
    """Return the networks of a run at its first step, chosen parameters trainable, the same for the same
    seed.

    Raises TrainingError where the folder has no UNet.
    """
    torch.manual_seed(config.seed)
    if isinstance(config.start, FromStableDiffusion):
        folder = config.start.folder / "unet"
        if not folder.is_dir():
            raise TrainingError(f"{folder}: there is no such folder")
        unet, source, driving = (
            UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32) for _ in range(3)
        )
    else:
        unet, source, driving = (UNet2DConditionModel.from_config(config.start.unet) for _ in range(3))
        for network in (unet, source, driving):
            start_looking(network, config.positions)
        # The first answers are nothing, not noise.
        torch.nn.init.zeros_(unet.conv_out.weight)
    networks = Networks(unet, source, driving, config.wiring, config.positions)
    networks.choose(config.trained)
    if config.gradient_checkpointing:
        for network in (unet, source, driving):
            network.enable_gradient_checkpointing()
    networks.train()
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks
