"""Where a run starts: random networks of a config, three copies of a Stable Diffusion UNet, or a
checkpoint.
"""

import torch
from diffusers import UNet2DConditionModel

from model.checkpoint import load_autoencoder, load_checkpoint
from model.errors import TrainingError
from model.training.config import FromCheckpoint, FromStableDiffusion, TrainingConfig
from model.training.networks import Networks, start_looking
from model.training.widening import channels_in, widen


def start_networks(config: TrainingConfig) -> Networks:
    """Return the networks of a run at its first step, chosen parameters trainable, the same for the same
    seed.

    Raises TrainingError where the folder has no UNet, or its checkpoint is wired otherwise, and
    CheckpointError where that is not whole.
    """
    torch.manual_seed(config.seed)
    if isinstance(config.start, FromStableDiffusion):
        folder = config.start.folder / "unet"
        if not folder.is_dir():
            raise TrainingError(f"{folder}: there is no such folder")
        unet, source, driving = (
            UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32) for _ in range(3)
        )
    elif isinstance(config.start, FromCheckpoint):
        checkpoint = load_checkpoint(config.start.folder)
        properties = checkpoint.properties
        if (properties.wiring, properties.positions) != (config.wiring, config.positions):
            raise TrainingError(
                f"{checkpoint.folder} has wiring {properties.wiring.value!r} and positions "
                f"{properties.positions.value!r}; the config must have the same"
            )
        unet, source, driving = (
            checkpoint.unet,
            checkpoint.referencenet,
            checkpoint.conditioning_referencenet,
        )
        if config.start.vae is not None:
            shared = channels_in(checkpoint.vae, load_autoencoder(config.start.vae, torch.float32))
            for network in (unet, source, driving):
                widen(network, shared)
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
