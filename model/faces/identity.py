"""How alike two faces are to an identity network: the check that a replaced face is no longer the person.

Before it come a photo and its faces' landmarks, once untouched and once with the faces replaced; after it the
distance stands in the result, with a warning where it is below the threshold. Nothing it computes is stored.
"""

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.errors import CheckpointError
from model.faces.alignment import Pixels, Quad, align, resample
from model.faces.face import Landmarks

Embedding = npt.NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "weights"
_CHIP_SIZE = 150
# dlib puts eyes at (47.5, 46.6) and (100.5, 46.6) and the mouth at (74, 103) of its 150 pixels: this part of
# an FFHQ crop. A least-squares fit of five points separated people no better (docs/identity.md).
_CHIP_ZOOM = 0.707
_CHIP_DOWN = 0.215
_MEAN_COLOUR = (122.782, 117.001, 104.298)  # dlib, input_rgb_image_sized
_QUANTUM = 256.0


class FaceEmbedder(Protocol):
    """What tells identities apart: a face's embedding, and the distance of two."""

    @property
    def threshold(self) -> float:
        """The distance below which two faces count as possibly the same person."""

    def embed(self, pixels: Pixels, landmarks: Landmarks) -> Embedding:
        """Return the embedding of the face that lies at `landmarks` in a photo's `pixels`."""

    def distance(self, one: Embedding, other: Embedding) -> float:
        """Return how far apart two embeddings are, 0 for the same."""


class DlibFaceEmbedder:
    """dlib's face network, a ResNet of 29 layers that gives 128 numbers, Euclidean distance (King, 2017).

    `threshold` is chosen in docs/identity.md.
    """

    threshold = 0.6

    def __init__(self, folder: Path = WEIGHTS) -> None:
        """Load the network from `folder`; raises CheckpointError where the files are absent or do not fit."""
        self._network = _Network().eval().requires_grad_(requires_grad=False)
        self._network.load_state_dict(_read_weights(folder), strict=True)

    def embed(self, pixels: Pixels, landmarks: Landmarks) -> Embedding:
        """Return 128 float32 numbers. Raises AlignmentError where the landmarks are degenerate."""
        quad = _chip(align(landmarks))
        chip = resample(pixels, quad.from_crop(_CHIP_SIZE), (_CHIP_SIZE, _CHIP_SIZE))
        colours = (chip.astype(np.float32) - np.array(_MEAN_COLOUR, dtype=np.float32)) / np.float32(_QUANTUM)
        with torch.inference_mode():
            embedding: Embedding = self._network(torch.from_numpy(colours).permute(2, 0, 1)[None])[0].numpy()
        return embedding

    def distance(self, one: Embedding, other: Embedding) -> float:
        """Return the Euclidean distance; strangers lie 0.6 to 1.1 apart."""
        return float(np.linalg.norm(one - other))


def _chip(quad: Quad) -> Quad:
    """Return the part of an FFHQ crop that dlib's network sees."""
    (cx, cy), (hx, hy) = quad.centre, quad.half
    return Quad((cx - hy * _CHIP_DOWN, cy + hx * _CHIP_DOWN), (hx * _CHIP_ZOOM, hy * _CHIP_ZOOM))


class _Convolution(nn.Module):
    """A convolution followed by the scale and bias that dlib's batch normalization has become."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride, padding)
        self.scale = nn.Parameter(torch.empty(filters, 1, 1))
        self.shift = nn.Parameter(torch.empty(filters, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(x) * self.scale + self.shift)


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, which `down` halves in size and fills up with empty channels."""

    def __init__(self, channels: int, filters: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = _Convolution(channels, filters, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = _Convolution(filters, filters, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(torch.relu(self.conv1(x)))
        if self.down:
            x = functional.avg_pool2d(x, 2, 2)
            # A 3 x 3 convolution without padding may end a row and a column before the shortcut does.
            height, width = x.shape[2:]
            out = functional.pad(out, (0, width - out.shape[3], 0, height - out.shape[2]))
            x = functional.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return torch.relu(out + x)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = _Convolution(3, 32, 7, 2, 0)
        stages = {32: 3, 64: 3, 128: 2, 256: 2}  # filters: blocks after the halving one
        channels = 32
        self.blocks = nn.ModuleDict()
        for filters, count in stages.items():
            if filters != channels:
                self.blocks[f"conv{filters}_down"] = _Residual(channels, filters, down=True)
            for index in range(1, count + 1):
                self.blocks[f"conv{filters}_{index}"] = _Residual(filters, filters, down=False)
            channels = filters
        self.blocks["conv256_down_out"] = _Residual(256, 256, down=True)
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (1, 3, 150, 150)
        x = functional.max_pool2d(torch.relu(self.conv32_down(x)), 3, 2)
        for block in self.blocks.values():
            x = block(x)
        return torch.as_tensor(self.fc(x.mean(dim=(2, 3))))  # (1, 128)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a TensorFlow.js file under our names: steps of a scale above a minimum."""
    try:
        manifest = json.loads((folder / "face_recognition_model-weights_manifest.json").read_text())
        stored = (folder / "face_recognition_model.bin").read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the identity network cannot be read: {error}") from error
    weights: dict[str, Tensor] = {}
    offset = 0
    for entry in manifest[0]["weights"]:
        shape, quantization = entry["shape"], entry.get("quantization")
        kind = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = int(np.prod(shape))
        if offset + count * kind.itemsize > len(stored):
            raise CheckpointError(
                f"face_recognition_model.bin has {len(stored):,} bytes and ends inside {entry['name']}"
            )
        values = np.frombuffer(stored, kind, count, offset).astype(np.float32).reshape(shape)
        offset += count * kind.itemsize
        if quantization:
            values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        name, tensor = _renamed(entry["name"], torch.from_numpy(values.copy()))
        weights[name] = tensor
    if offset != len(stored):
        raise CheckpointError(
            f"face_recognition_model.bin has {len(stored):,} bytes, its manifest names {offset:,}"
        )
    return weights


def _renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name == "fc":
        return "fc.weight", tensor.T
    block, _, part = name.rpartition("/conv/") if "/conv/" in name else name.rpartition("/scale/")
    place = block.replace("/", ".")
    if "/" in block:
        place = f"blocks.{place}"
    match part:
        case "filters":  # (height, width, in, out) to (out, in, height, width)
            return f"{place}.conv.weight", tensor.permute(3, 2, 0, 1)
        case "bias":
            return f"{place}.conv.bias", tensor
        case "weights":
            return f"{place}.scale", tensor.reshape(-1, 1, 1)
        case _:
            return f"{place}.shift", tensor.reshape(-1, 1, 1)
