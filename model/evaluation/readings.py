"""Reads portraits and results with the measuring network, after validating it on portraits it has never seen.

What it cannot read there is not read at all: `Measures` names what is left out, and why. `networks.py` comes
before; `comparison.py` takes the readings.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.evaluation.measures import truths
from model.evaluation.networks import PARAMETERS, SIDE, MeasuringNetwork
from model.evaluation.portraits import Pixels, Portraits, Stream, portray, sample, sample_framed
from model.renderer.parameters import Floats

# Below this part of the variance explained, a parameter is not reported.
READABLE = 0.5
BATCH = 128
# Results of a small model are about as soft as portraits under this blur, in pixels of 64.
SOFT = 0.8


class Reading(BaseModel):
    """How well one parameter is read on held-out portraits: the part of its variance that is explained
    (R2).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    crisp: float
    soft: float
    """On portraits under a Gaussian blur of 0.8 pixels, as soft as a small model's results."""

    @property
    def readable(self) -> bool:
        """Whether it may be reported: read well enough on both."""
        return min(self.crisp, self.soft) >= READABLE


class Verification(BaseModel):
    """How well embeddings tell identities apart: pairs of held-out portraits in different attributes.

    `threshold` is the distance at which as many strangers are taken for the same as the other way round;
    `accuracy` is what it gets right of all pairs. `nearest` is the share of portraits whose nearest of the
    others is of the same identity.
    """

    model_config = ConfigDict(frozen=True)

    pairs: int
    threshold: float
    accuracy: float
    accuracy_soft: float
    same: float
    strangers: float
    nearest: float


@dataclass(frozen=True)
class Read:
    """What is read of n pictures: parameters (n, len(PARAMETERS)) in their own units, embeddings (n, k)."""

    parameters: Floats
    embeddings: Floats


@dataclass(frozen=True)
class Measures:
    """A validated measuring network."""

    network: MeasuringNetwork
    readings: tuple[Reading, ...]
    verification: Verification

    def readable(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the parameters that may be reported."""
        known = {reading.name for reading in self.readings if reading.readable}
        return tuple(name for name in names if name in known)

    def read(self, pictures: Pixels) -> Read:
        """Read pictures of any size (n, size, size, 3)."""
        return read(self.network, pictures)


def validated(network: MeasuringNetwork, count: int) -> Measures:
    """Return the network with how well it reads `count` portraits of identities it has never seen."""
    crisp = sample(Stream.VALIDATION, count, SIDE)
    truth = truths(crisp.identities, crisp.attributes)
    scores = [
        r_squared(read(network, some).parameters, truth) for some in (crisp.pictures, soft(crisp.pictures))
    ]
    readings = tuple(
        Reading(name=name, crisp=float(scores[0][index]), soft=float(scores[1][index]))
        for index, name in enumerate(PARAMETERS)
    )
    return Measures(network, readings, _verification(network, crisp))


def read(network: MeasuringNetwork, pictures: Pixels) -> Read:
    """Read pictures (n, size, size, 3), made 64 pixels large where they are not."""
    if pictures.shape[1] != SIDE:
        pictures = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in pictures])
    parameters, embeddings = [], []
    with torch.inference_mode():
        for first in range(0, len(pictures), BATCH):
            some = torch.from_numpy(pictures[first : first + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1
            output = network(some)
            parameters.append(output.parameters * network.spreads + network.means)
            embeddings.append(output.embeddings)
    return Read(torch.cat(parameters).numpy(), torch.cat(embeddings).numpy())


def soft(pictures: Pixels, sigma: float = SOFT) -> Pixels:
    """Return pictures under a Gaussian blur of so many pixels."""
    return np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in pictures])


def r_squared(values: Floats, truth: Floats) -> NDArray[np.float64]:
    """Return the part of each column's variance that is explained, NaN in the truth being left out."""
    errors = np.nanmean((values.astype(np.float64) - truth) ** 2, axis=0)
    return np.asarray(1 - errors / np.nanvar(truth.astype(np.float64), axis=0))


def distances(one: Floats, other: Floats) -> Floats:
    """Return the cosine distance of embeddings, row by row: 0 for the same, about 1 for unrelated ones."""
    return np.asarray(np.maximum(1 - (one * other).sum(axis=-1), 0))


def _verification(network: MeasuringNetwork, portraits: Portraits) -> Verification:
    """Compare each portrait with the same identity in other attributes, and with the next identity in
    them.
    """
    count = len(portraits)
    others = portray(portraits.identities, sample_framed(Stream.PAIRS, count), SIDE)
    first = read(network, portraits.pictures).embeddings
    second = read(network, others.pictures).embeddings
    softened = read(network, soft(others.pictures)).embeddings
    same, strangers = distances(first, second), distances(first, np.roll(second, 1, axis=0))
    threshold = _equal_error(same, strangers)
    likeness = first @ second.T
    return Verification(
        pairs=2 * count,
        threshold=threshold,
        accuracy=_accuracy(same, strangers, threshold),
        accuracy_soft=_accuracy(
            distances(first, softened), distances(first, np.roll(softened, 1, axis=0)), threshold
        ),
        same=float(same.mean()),
        strangers=float(strangers.mean()),
        nearest=float((likeness.argmax(axis=1) == np.arange(count)).mean()),
    )


def _accuracy(same: Floats, strangers: Floats, threshold: float) -> float:
    return float(((same < threshold).mean() + (strangers >= threshold).mean()) / 2)


def _equal_error(same: Floats, strangers: Floats) -> float:
    candidates = np.sort(np.concatenate((same, strangers)))
    missed = (same[:, None] >= candidates).mean(axis=0)
    taken = (strangers[:, None] < candidates).mean(axis=0)
    return float(candidates[np.abs(missed - taken).argmin()])
