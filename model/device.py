"""What depends on the machine the networks run on; everything else is the same on CPU and CUDA."""

import torch

from model.checkpoint import Checkpoint

SMALL_NETWORK = 50_000_000
"""Parameters; below it a step is over before a second thread has woken up."""


def prepare_device(checkpoint: Checkpoint) -> None:
    """Choose the number of CPU threads for this process: one for small networks, torch's choice otherwise.

    The choice depends on the checkpoint alone, so that a seed gives the same bytes in every process.
    """
    parameters = sum(parameter.numel() for parameter in checkpoint.unet.parameters())
    if checkpoint.device.type == "cpu" and parameters < SMALL_NETWORK:
        torch.set_num_threads(1)
