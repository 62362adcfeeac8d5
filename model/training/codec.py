"""Latents without training: the main components of 8 x 8 pixel patches, in a stock `AutoencoderDC`.

Portraits of the pool come before; the folder that `save` writes is a checkpoint's `vae`. It is a linear
transform, written into the stock network's shortcuts and two convolutions, whose residual blocks stay zero.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderDC
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# Beside a channel this large, RMS normalization divides all pixels by nearly the same number.
LOUD = 1e3
# Added before the stock ReLU, and taken off after it; pixels lie from -1 to 1, and overshoot.
OFFSET = 8.0
HALVINGS = 3  # of the side, in the stock network


@dataclass(frozen=True)
class Components:
    """The main components of patches of (3, 8, 8): `axes` (k, 192), `mean` (192,), `deviation` (k,) along
    them.
    """

    axes: Tensor
    mean: Tensor
    deviation: Tensor


def main_components(portraits: NDArray[np.uint8], channels: int) -> Components:
    """Return the `channels` components with the largest variance in portraits (n, height, width, 3)."""
    rows = patches(torch.from_numpy(portraits)).movedim(1, -1).flatten(0, 2).double()
    mean = rows.mean(dim=0)
    variances, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    chosen = variances.argsort(descending=True)[:channels]
    return Components(axes.T[chosen].float(), mean.float(), variances[chosen].sqrt().float())


def patches(portraits: Tensor) -> Tensor:
    """Return uint8 portraits (n, height, width, 3) as patches in -1..1, (n, 192, height / 8, width / 8)."""
    pixels = portraits.movedim(-1, 1).float() / 127.5 - 1
    for _ in range(HALVINGS):
        pixels = functional.pixel_unshuffle(pixels, 2)
    return pixels


@torch.no_grad()
def autoencoder(components: Components) -> AutoencoderDC:
    """Return the stock network whose latents are the components, at unit variance each."""
    channels = len(components.deviation)
    widths = [3 * 4**halving for halving in range(HALVINGS + 1)]
    wider = [4 * 4**halving for halving in range(HALVINGS + 1)]
    network = AutoencoderDC(
        latent_channels=channels,
        encoder_block_out_channels=tuple(widths),
        decoder_block_out_channels=tuple(wider),
        encoder_layers_per_block=(1,) * HALVINGS + (0,),
        decoder_layers_per_block=(1,) * HALVINGS + (0,),
        encoder_qkv_multiscales=((),) * (HALVINGS + 1),
        decoder_qkv_multiscales=((),) * (HALVINGS + 1),
        upsample_block_type="interpolate",
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
    )
    for name, parameter in network.named_parameters():
        parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    encoder, decoder = network.encoder, network.decoder
    encoder.conv_in.weight[:, :, 1, 1] = torch.eye(3)
    analysis = components.axes / components.deviation[:, None]
    encoder.conv_out.weight[:, :, 1, 1] = analysis
    encoder.conv_out.bias.copy_(-analysis @ components.mean)
    # Four channels a pixel: red, green, blue, and the loud one.
    synthesis = (components.axes.T * components.deviation).view(3, 4**HALVINGS, channels)
    decoder.conv_in.weight[: 3 * 4**HALVINGS, :, 1, 1] = synthesis.flatten(0, 1)
    decoder.conv_in.bias[: 3 * 4**HALVINGS] = components.mean
    decoder.conv_in.bias[3 * 4**HALVINGS :] = LOUD
    decoder.norm_out.weight.fill_(LOUD / 2)  # the root of the mean of four squares, one of them loud
    decoder.norm_out.bias.fill_(OFFSET)
    decoder.conv_out.weight[:, :3, 1, 1] = torch.eye(3)
    decoder.conv_out.bias.fill_(-OFFSET)
    return network.eval()
