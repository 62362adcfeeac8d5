"""Trains the measuring network on rendered portraits: `python -m model.evaluation.measures [FILE]`.

About 20 minutes on one core. The portraits' parameters are the truth; the pictures are blurred, made noisy
and changed in contrast at random, since what is to be measured, a small diffusion model's results, is soft
and noisy. The pool that training renders comes before; `readings.py` validates what came out before it is
used.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from model.evaluation.networks import (
    EXPRESSION,
    GAZE,
    PARAMETERS,
    POSE,
    SIDE,
    WEIGHTS,
    MeasuringNetwork,
    save_network,
)
from model.evaluation.portraits import SEED
from model.renderer.groups import Indices, crossed
from model.renderer.parameters import Attributes, Floats, Identity
from model.training.optimizers import Muon
from model.training.pool import Pool

# Mirrored portraits are portraits too, with these the other way round.
MIRRORED = ("yaw", "roll", "gaze_x")
# Closer than this to shut, an eye does not show where it looks.
SHUT = 0.3
# The temperature of the contrast between identities, and how much it counts beside the readings.
TEMPERATURE, CONTRAST = 0.1, 0.2
ATTRIBUTES = (*POSE, *GAZE, *EXPRESSION)
# Attributes are few, and can be read; much of a head's shape is less than a pixel.
ATTRIBUTES_WEIGH = 3.0
BLURS = (0.6, 1.2)
FILTER_RATE, OTHER_RATE = 2e-2, 2e-3


@dataclass(frozen=True)
class Plan:
    """How long to train, and on how much: a step sees `batch` groups' identities in two sets of
    attributes.
    """

    groups: int = 1200
    steps: int = 4000
    batch: int = 8
    seed: int = SEED


def truths(identities: Identity, attributes: Attributes) -> Floats:
    """Return the true parameters (n, len(PARAMETERS)), NaN where a picture cannot show them."""
    values = {**identities.arrays(), **attributes.arrays()}
    columns = np.stack([values[name] for name in PARAMETERS], axis=1).astype(np.float32)
    hidden = {
        "gaze": attributes.eyes_open < SHUT,
        "hair": identities.hair < 1,
    }
    for index, name in enumerate(PARAMETERS):
        columns[hidden.get(name.split("_", maxsplit=1)[0], np.zeros(len(identities), bool)), index] = np.nan
    return columns


def to_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures (n, 64, 64, 3) as (n, 3, 64, 64) from -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures blurred by up to 1.2 pixels, with noise up to 0.1 and contrast and brightness
    changed.
    """

    def between(least: float, most: float) -> Tensor:
        return least + (most - least) * torch.rand(len(pictures), 1, 1, 1, generator=generator)

    blurred = blur(pictures, BLURS[int(torch.randint(len(BLURS), (), generator=generator))])
    share = between(-0.4, 1.0).clamp(min=0)
    noise = torch.randn(pictures.shape, generator=generator) * between(-0.05, 0.1).clamp(min=0)
    return torch.lerp(pictures, blurred, share) * between(0.9, 1.1) + between(-0.06, 0.06) + noise


def blur(pictures: Tensor, sigma: float) -> Tensor:
    """Return pictures (n, 3, side, side) under a Gaussian of so many pixels, as two matrix products."""
    places = torch.arange(pictures.shape[-1])
    weights = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights @ pictures @ weights.T


def train(plan: Plan, pool: Pool) -> MeasuringNetwork:
    """Return a network trained by the plan on a pool's portraits, the same for both on the same machine.

    Identities are told apart best where others are in the same attributes: that is what a group has.
    """
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    draw = np.random.default_rng(plan.seed)
    portraits = np.stack([pool.group(index).reshape(-1, SIDE, SIDE, 3) for index in range(plan.groups)])
    truth = np.stack(
        [truths(*crossed(pool.identities(index), pool.attributes(index))) for index in range(plan.groups)]
    )
    network = MeasuringNetwork()
    network.means.copy_(torch.from_numpy(np.nanmean(truth, axis=(0, 1))))
    network.spreads.copy_(torch.from_numpy(np.nanstd(truth, axis=(0, 1))))
    network.means[[PARAMETERS.index(name) for name in MIRRORED]] = 0
    targets = (torch.from_numpy(truth) - network.means) / network.spreads
    signs = torch.tensor([-1.0 if name in MIRRORED else 1.0 for name in PARAMETERS])
    filters = [one for one in network.parameters() if one.ndim == 4]  # noqa: PLR2004  of convolutions
    others = [one for one in network.parameters() if one.ndim < 4]  # noqa: PLR2004
    optimizers = (Muon(filters, FILTER_RATE), torch.optim.AdamW(others, OTHER_RATE, weight_decay=0.01))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate_at(step / plan.steps)) for one in optimizers
    ]
    bar = trange(plan.steps, unit="step")
    for _ in bar:
        groups, rows = chosen(plan, pool.side, draw)
        mirror = torch.from_numpy(draw.random(len(rows)) < 0.5)  # noqa: PLR2004  half of them
        pictures = to_input(portraits[groups, rows])
        pictures[mirror] = pictures[mirror].flip(3)
        target = torch.where(mirror[:, None], targets[groups, rows] * signs, targets[groups, rows])
        output = network(worn(pictures, generator))
        reading = reading_loss(output.parameters, target)
        contrast = contrast_loss(output.embeddings)
        network.zero_grad()
        torch.autograd.backward(reading + CONTRAST * contrast)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        bar.set_postfix(reading=f"{reading.item():.3f}", contrast=f"{contrast.item():.3f}")
    return network.eval()


def chosen(plan: Plan, side: int, draw: np.random.Generator) -> tuple[Indices, Indices]:
    """Return groups and portraits in them, (2 * batch * side,) each: all identities of some groups, twice.

    The second half shows the same identities in the same order, in other attributes.
    """
    groups = draw.choice(plan.groups, (plan.batch, 1), replace=False)
    columns = draw.permuted(np.tile(np.arange(side), (plan.batch, 1)), axis=1)[:, :2]
    rows = np.arange(side) * side + columns.T[:, :, None]  # (2, batch, side)
    return np.broadcast_to(groups, rows.shape).ravel(), rows.ravel()


def rate_at(progress: float) -> float:
    """Return the part of the learning rate to use: a short rise, level to a third, then down to nothing."""
    return min(1.0, 30 * progress + 0.05, 1.5 * (1 - progress))


def reading_loss(read: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error over what the pictures show, in squared spreads."""
    shown = ~target.isnan()
    weights = torch.tensor([ATTRIBUTES_WEIGH if name in ATTRIBUTES else 1.0 for name in PARAMETERS])
    errors = weights * (read - target.nan_to_num()) ** 2
    return errors[shown].mean()


def contrast_loss(embeddings: Tensor) -> Tensor:
    """Return how badly each portrait of the first half finds its identity in the second (van den Oord,
    2018).
    """
    first, second = embeddings.chunk(2)
    likeness = first @ second.T / TEMPERATURE
    own = torch.arange(len(first))
    return (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2


def main() -> None:
    """Train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument("--pool", type=Path, default=Path("portraits"), help="folder for rendered portraits")
    parser.add_argument("--pool-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.process_time()
    plan, pool = Plan(steps=chosen.steps), Pool(chosen.pool, chosen.pool_seed, 6, SIDE)
    pool.render(plan.groups, processes=1)
    network = train(plan, pool)
    save_network(network, chosen.file)
    print(f"{time.process_time() - begin:.0f} s of processor time")  # noqa: T201  a command's own output


if __name__ == "__main__":
    main()
