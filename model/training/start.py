"""Where a run starts: random networks of a config, three copies of a Stable Diffusion UNet, or a
checkpoint.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from model.checkpoint import read_properties
from model.errors import TrainingError
from model.training.config import FromCheckpoint, FromStableDiffusion, TrainingConfig
from model.training.networks import Networks, start_looking


def start_networks(config: TrainingConfig) -> Networks:
    """Return the networks of a run at its first step, chosen parameters trainable, the same for the same
    seed.

    Raises TrainingError where the folder lacks a network, or its checkpoint is wired otherwise.
    """
    torch.manual_seed(config.seed)
    if isinstance(config.start, FromStableDiffusion):
        unet, source, driving = (stored(config.start.folder / "unet") for _ in range(3))
    elif isinstance(config.start, FromCheckpoint):
        folder = config.start.folder
        properties = read_properties(folder)
        if (properties.wiring, properties.positions) != (config.wiring, config.positions):
            raise TrainingError(
                f"{folder} has wiring {properties.wiring.value!r} and positions "
                f"{properties.positions.value!r}; the config must have the same"
            )
        unet, source, driving = (
            stored(folder / name) for name in ("unet", "referencenet", "conditioning_referencenet")
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


def stored(folder: Path) -> UNet2DConditionModel:
    """Return a stored network in float32, which forgets where it came from: an export would tell it.

    Raises TrainingError where there is none.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: there is no such folder")
    loaded = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    config = {name: value for name, value in loaded.config.items() if name != "_name_or_path"}
    network = UNet2DConditionModel.from_config(config)
    network.load_state_dict(loaded.state_dict())
    return network
