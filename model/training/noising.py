"""From encoded triplets to what the networks see and should answer: noise, timesteps, the unconditional mode.

The data (`rendered`, `lines`) comes before, the networks and the loss after. Everything random comes from the
generator that is given, so that a step is the same wherever and whenever it is made.
"""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import Generator, Tensor

from model.training.networks import Examples


@dataclass(frozen=True)
class Triplets:
    """Encoded pictures, and rows of them: which source and driving picture a row reads, and its truth.

    Latents (n, channels, height, width), tokens (n, width), rows (rows,), truth (rows, channels, height,
    width); `same_picture` (rows,) says where source, driving picture and truth are one, `emphasis` (rows,
    height, width) what an error there counts in the loss.
    """

    source_latents: Tensor
    source_tokens: Tensor
    driving_latents: Tensor
    driving_tokens: Tensor
    source_row: Tensor
    driving_row: Tensor
    truth: Tensor
    same_picture: Tensor
    emphasis: Tensor


@dataclass(frozen=True)
class Timesteps:
    """How timesteps are drawn: `terminal` of them the last, where all is noise; the others as u^`power` of
    it.

    0 and 1 are the published uniform draw; below 1 the power draws more noise.
    """

    terminal: float
    power: float

    def draw(self, count: int, trained: int, generator: Generator) -> Tensor:
        """Return timesteps (count,) from 0 to `trained` - 1."""
        spread = (
            (torch.rand(count, generator=generator) ** self.power * trained).long().clamp(max=trained - 1)
        )
        last = torch.rand(count, generator=generator) < self.terminal
        return torch.where(last, trained - 1, spread)


@dataclass(frozen=True)
class Question:
    """Examples, the v (rows, channels, height, width) they ask for, what an error counts in the loss (rows,
    height, width), and how many rows are unconditional.
    """

    examples: Examples
    v: Tensor
    emphasis: Tensor
    unconditional: int


def noised(
    triplets: Triplets,
    alphas: Tensor,
    timesteps: Timesteps,
    *,
    draws: int,
    unconditional: float,
    generator: Generator,
) -> Question:
    """Draw noise `draws` times a row, and take the source from `unconditional` (0 to 1) of the rows.

    `alphas` (timesteps,) are the schedule's cumulative products. The unconditional source is one more
    picture: zero latents with a zero token. A row that shows one picture keeps its source: without one the
    face shall be anybody's but the driving picture's. v is that of Salimans and Ho, "Progressive
    distillation", ICLR 2022.
    """
    truth = triplets.truth.repeat_interleave(draws, dim=0)
    source_row, driving_row, same_picture = (
        rows.repeat_interleave(draws)
        for rows in (triplets.source_row, triplets.driving_row, triplets.same_picture)
    )
    chance = unconditional * len(truth) / max(1, int((~same_picture).sum()))
    nobody = ~same_picture & (torch.rand(len(truth), generator=generator) < chance)
    source_row = torch.where(nobody, len(triplets.source_latents), source_row)
    chosen = timesteps.draw(len(truth), len(alphas), generator)
    noise = torch.randn(truth.shape, generator=generator)
    signal = alphas[chosen].sqrt()[:, None, None, None]
    loud = (1 - alphas[chosen]).sqrt()[:, None, None, None]
    examples = Examples(
        source_latents=with_zero(triplets.source_latents),
        source_tokens=with_zero(triplets.source_tokens),
        driving_latents=triplets.driving_latents,
        driving_tokens=triplets.driving_tokens,
        source_row=source_row,
        driving_row=driving_row,
        noisy=signal * truth + loud * noise,
        timesteps=chosen,
    )
    emphasis = triplets.emphasis.repeat_interleave(draws, dim=0)
    return Question(examples, signal * noise - loud * truth, emphasis, int(nobody.sum()))


def with_zero(rows: Tensor) -> Tensor:
    """Return the rows and one of zeros."""
    return torch.cat((rows, torch.zeros_like(rows[:1])))


def alphas_of(scheduler: DDPMScheduler) -> Tensor:
    """Return the cumulative products of a schedule, (timesteps,)."""
    alphas: Tensor = scheduler.alphas_cumprod
    return alphas


def v_loss(
    predicted: Tensor, v: Tensor, weights: Tensor | None = None, emphasis: Tensor | None = None
) -> Tensor:
    """Return the mean squared error of v, the published loss, where nothing is weighed.

    `weights` (channels,) weigh latents, `emphasis` (rows, height, width) places. The best answer is the mean
    of v at each latent whatever it counts; what counts more is learned sooner.
    """
    squares = (predicted.float() - v) ** 2
    if weights is not None:
        squares = squares * weights[:, None, None]
    return squares.mean() if emphasis is None else (squares * emphasis[:, None]).mean()
