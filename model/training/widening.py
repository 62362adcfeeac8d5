"""Takes networks over to an autoencoder whose latents include those that they were trained on.

`codec` comes before: the first of more main components are the same components. The networks compute what
they computed, and what the further channels hold is learned from nothing.
"""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from model.autoencoder import Autoencoder
from model.errors import TrainingError

CLOSE = 0.02


@torch.no_grad()
def channels_in(trained: Autoencoder, further: Autoencoder) -> Tensor:
    """Return a matrix M (channels, further channels): `trained` encodes what `further` decodes from z as M z.

    Raises TrainingError where they are not part of them: M has orthonormal rows where they are, as both have
    unit variance.
    """
    count = further.config.latent_channels
    basis = torch.cat((torch.zeros(1, count), torch.eye(count)))[:, :, None, None]
    nothing, *units = trained.encode(further.decode(basis).sample).latent.flatten(1)
    shared = torch.stack([unit - nothing for unit in units], dim=1)
    wrong = (shared @ shared.T - torch.eye(len(shared))).abs().max()
    if max(float(wrong), float(nothing.abs().max())) > CLOSE:
        raise TrainingError("the vae's latents do not include those that the checkpoint was trained on")
    return shared


@torch.no_grad()
def widen(network: UNet2DConditionModel, shared: Tensor) -> None:
    """Let a network take and give latents of more channels, by the matrix of `channels_in`.

    Noise of unit variance stays that: M has orthonormal rows.
    """
    wider = shared.shape[1]
    first, last = network.conv_in, network.conv_out
    network.conv_in = type(first)(wider, first.out_channels, first.kernel_size, padding=first.padding)
    network.conv_in.weight.copy_(torch.einsum("ocyx,cn->onyx", first.weight, shared))
    network.conv_in.bias.copy_(first.bias)
    network.conv_out = type(last)(last.in_channels, wider, last.kernel_size, padding=last.padding)
    network.conv_out.weight.copy_(torch.einsum("ciyx,cn->niyx", last.weight, shared))
    network.conv_out.bias.copy_(last.bias @ shared)
    network.register_to_config(in_channels=wider, out_channels=wider)
