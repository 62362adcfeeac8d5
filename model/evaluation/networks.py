"""The measuring network: reads the parameters of a rendered portrait, and embeds who it shows.

`measures.py` trains it; `readings.py` validates it and reads portraits and results with it. It shares nothing
with the networks of a checkpoint: they are what it judges.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from model.errors import CheckpointError

WEIGHTS = Path(__file__).parent / "weights" / "measures.safetensors"
SIDE = 64
EMBEDDING = 64

POSE = ("yaw", "pitch", "roll")
GAZE = ("gaze_x", "gaze_y")
EXPRESSION = ("mouth_open", "smile", "eyes_open", "brows")
SHAPE = (
    "head_width", "head_height", "jaw", "chin", "cheeks",
    "eye_distance", "eye_size", "eye_height", "eye_slant",
    "brow_height", "brow_thickness", "brow_arch", "brow_slant",
    "nose_length", "nose_width", "nose_size", "mouth_width", "lip_upper", "lip_lower",
)  # fmt: skip
LOOKS = ("hair_line", "hair_length", "hair_volume", "beard", "moustache", "glasses")
PARAMETERS = (*POSE, *GAZE, *EXPRESSION, *SHAPE, *LOOKS)
"""What is read, in the order of the network's outputs; names as in `model.renderer.parameters`."""


class Output(NamedTuple):
    """Parameters (n, len(PARAMETERS)) in units of their spread, and unit embeddings (n, EMBEDDING)."""

    parameters: Tensor
    embeddings: Tensor


class MeasuringNetwork(nn.Module):
    """A small convolutional network for portraits (n, 3, 64, 64) from -1 to 1.

    Both heads see the same places of the picture, and no average over them: where something is is what
    counts.
    """

    means: Tensor
    spreads: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            _convolution(12, 32, 1),
            _Residual(32),
            _convolution(32, 64, 2),
            _Residual(64),
            _convolution(64, 96, 2),
            _Residual(96),
            _convolution(96, 96, 2),
            nn.Flatten(),
        )
        self.reader = _head(len(PARAMETERS))
        self.embedder = _head(EMBEDDING)
        self.register_buffer("means", torch.zeros(len(PARAMETERS)))
        self.register_buffer("spreads", torch.ones(len(PARAMETERS)))

    def forward(self, pictures: Tensor) -> Output:
        """Read and embed portraits."""
        features = self.trunk(pictures.contiguous(memory_format=torch.channels_last))
        return Output(self.reader(features), functional.normalize(self.embedder(features), dim=1))


def save_network(network: MeasuringNetwork, file: Path) -> None:
    """Write the weights in half precision: their rounding moves no reading by a hundredth of its spread."""
    halved = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in halved.items()}, file)


def load_network(file: Path = WEIGHTS) -> MeasuringNetwork:
    """Return the measuring network in evaluation mode; raises CheckpointError where the file does not fit."""
    network = MeasuringNetwork()
    try:
        network.load_state_dict(load_file(file), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{file}: the measuring network cannot be read: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = _convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(x + self.convolution(x))


def _convolution(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)
    )


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(96 * 4 * 4, 256), nn.ReLU(inplace=True), nn.Linear(256, outputs))
