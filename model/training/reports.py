"""How a run goes: held-out figures, a sheet of pictures, the log and TensorBoard.

The loop calls in here at intervals, with the averaged weights.
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from PIL import Image
from torch import Generator, Tensor
from torch.utils.tensorboard import SummaryWriter

from model.training.networks import Examples, Networks
from model.training.noising import Timesteps, Triplets, alphas_of, noised, v_loss, with_zero
from model.training.parts import Parts

if TYPE_CHECKING:
    from model.training.sources import Source

HELD_OUT = 4  # batches measured
SHOWN = 12  # columns of the sheet
FEW_STEPS = 8


class Reporter:
    """Writes the reports of one run into its folder."""

    def __init__(self, folder: Path, parts: Parts, source: "Source", weights: Tensor | None) -> None:
        self.folder, self.parts, self.source, self.weights = folder, parts, source, weights
        self.events: SummaryWriter | None = None

    def log(
        self, figures: dict[str, float], *, step: int, hours: float, rows: int, unconditional: int
    ) -> None:
        """Append figures to `log.jsonl` and to TensorBoard's events."""
        line = {
            "time": round(time.time(), 1),
            "step": step,
            "hours": round(hours, 5),
            "rows": rows,
            "unconditional": unconditional,
            **{name: round(figure, 6) for name, figure in figures.items()},
        }
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, figure in figures.items():
            self._writer().add_scalar(name, figure, step)

    @torch.no_grad()
    def validate(self, networks: Networks, step: int) -> dict[str, float]:
        """Return held-out figures, and draw `pictures/STEP.png`; the same noise at every call."""
        losses: list[float] = []
        ends: list[float] = []
        one: list[float] = []
        few: list[float] = []
        driving: list[float] = []
        for index in range(HELD_OUT):
            triplets = self.source.held_out(index)
            truth = self.parts.decode(triplets.truth)
            for timesteps, kept in ((Timesteps(0.0, 1.0), losses), (Timesteps(1.0, 1.0), ends)):
                question = noised(
                    triplets,
                    alphas_of(self.parts.scheduler),
                    timesteps,
                    draws=1,
                    unconditional=0.0,
                    generator=Generator().manual_seed(index),
                )
                kept.append(float(v_loss(networks(question.examples), question.v, self.weights)))
            for steps, noise in ((1, one), (FEW_STEPS, few)):
                made = self.parts.decode(sample(networks, triplets, self.parts.scheduler, steps, index))
                noise.append(error(made, truth, triplets))
            seen = self.parts.decode(triplets.driving_latents[triplets.driving_row])
            driving.append(error(seen, truth, triplets))
        sheet = self.sheet(networks)
        (self.folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(sheet).save(self.folder / "pictures" / f"{step:07}.png")
        self._writer().add_image("held out", sheet, step, dataformats="HWC")
        return {
            "held_out_loss": float(np.mean(losses)),
            "held_out_loss_all_noise": float(np.mean(ends)),
            "held_out_psnr_1_step": decibels(one),
            f"held_out_psnr_{FEW_STEPS}_steps": decibels(few),
            "held_out_psnr_driving": decibels(driving),
        }

    def sheet(self, networks: Networks) -> np.ndarray:
        """Return held-out cases in columns: source, driving, results in 1, 8, 25 steps, 8 unconditional,
        truth.
        """
        triplets = proper(self.source.held_out(HELD_OUT), SHOWN)
        scheduler = self.parts.scheduler
        rows = [
            triplets.source_latents[triplets.source_row],
            triplets.driving_latents[triplets.driving_row],
            sample(networks, triplets, scheduler, 1, 0),
            sample(networks, triplets, scheduler, FEW_STEPS, 0),
            sample(networks, triplets, scheduler, 25, 0),
            sample(networks, without_source(triplets), scheduler, FEW_STEPS, 0),
            triplets.truth,
        ]
        pictures = [torch.cat(list(self.parts.decode(row)), dim=2) for row in rows]
        sheet = (torch.cat(pictures, dim=1) * 255).round().to(torch.uint8)
        return np.asarray(sheet.movedim(0, -1).cpu().numpy())

    def _writer(self) -> SummaryWriter:
        if self.events is None:
            self.events = SummaryWriter(self.folder / "events")
        return self.events


@torch.no_grad()
def sample(networks: Networks, triplets: Triplets, schedule: DDPMScheduler, steps: int, seed: int) -> Tensor:
    """Return latents of all rows in so many deterministic steps (Song et al., "DDIM", ICLR 2021)."""
    scheduler = DDIMScheduler.from_config(schedule.config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    latents = torch.randn(triplets.truth.shape, generator=Generator().manual_seed(seed))
    latents = latents.to(triplets.truth.device)
    for timestep in scheduler.timesteps:
        examples = Examples(
            source_latents=triplets.source_latents,
            source_tokens=triplets.source_tokens,
            driving_latents=triplets.driving_latents,
            driving_tokens=triplets.driving_tokens,
            source_row=triplets.source_row,
            driving_row=triplets.driving_row,
            noisy=latents,
            timesteps=torch.full((len(latents),), int(timestep), device=latents.device),
        )
        latents = scheduler.step(networks(examples), timestep, latents).prev_sample
    return latents


def proper(triplets: Triplets, count: int) -> Triplets:
    """Return the first rows whose source and driving pictures differ, spread over them."""
    rows = torch.nonzero(~triplets.same_picture).flatten()
    if len(rows) == 0:
        rows = torch.arange(len(triplets.truth))
    chosen = rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]
    return replace(
        triplets,
        source_row=triplets.source_row[chosen],
        driving_row=triplets.driving_row[chosen],
        truth=triplets.truth[chosen],
        same_picture=triplets.same_picture[chosen],
        emphasis=triplets.emphasis[chosen],
    )


def without_source(triplets: Triplets) -> Triplets:
    """Return the rows in the unconditional mode."""
    return replace(
        triplets,
        source_latents=with_zero(triplets.source_latents),
        source_tokens=with_zero(triplets.source_tokens),
        source_row=torch.full_like(triplets.source_row, len(triplets.source_latents)),
    )


def error(made: Tensor, truth: Tensor, triplets: Triplets) -> float:
    """Return the mean squared error of pixels in 0..1 over the middle half of rows and columns, the face.

    Rows whose source and driving pictures are one do not count, unless all are.
    """
    side = made.shape[-1]
    middle = slice(side // 4, side - side // 4)
    squares = ((made - truth)[..., middle, middle] ** 2).mean(dim=(1, 2, 3))
    differ = ~triplets.same_picture
    return float(squares[differ].mean() if differ.any() else squares.mean())


def decibels(errors: list[float]) -> float:
    """Return the peak signal-to-noise ratio of mean squared errors, in dB."""
    return -10 * math.log10(float(np.mean(errors)))
