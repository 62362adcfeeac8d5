"""Samplers: one face's way from noise to clean latents along its timesteps, with diffusers' schedulers.

`model.engine_batch` predicts v for all faces in one call, then each face's own `FaceSampler` takes the step.
"""

import copy
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Generator, Tensor

from model.task import Sampler

_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


class FaceSampler:
    """Where one face is in its sampling; holds its scheduler and its generator, shared with nobody."""

    def __init__(self, schedule: DDPMScheduler, sampler: Sampler, steps: int, generator: Generator) -> None:
        self._scheduler = scheduler_for(schedule, steps, sampler)
        self._random = {"generator": generator} if sampler is Sampler.DDPM else {}
        self._timesteps: list[int] = self._scheduler.timesteps.tolist()
        self.steps = steps
        self.done = 0

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.done == self.steps

    @property
    def timestep(self) -> int:
        """The timestep of the next step."""
        return self._timesteps[self.done]

    def begin(self, noise: Tensor) -> Tensor:
        """Return the latents that the first step starts from."""
        latents: Tensor = noise * self._scheduler.init_noise_sigma
        return latents

    def advance(self, v: Tensor, latents: Tensor) -> Tensor:
        """Return the latents (1, channels, height, width) after the next step, given its prediction `v`."""
        latents = self._scheduler.step(v, self.timestep, latents, **self._random).prev_sample
        self.done += 1
        return latents


def scheduler_for(schedule: DDPMScheduler, steps: int, sampler: Sampler = Sampler.DDPM) -> Any:  # noqa: ANN401  untyped
    """Return a sampler of a checkpoint's noise schedule, set to `steps` (1 to 1000) timesteps.

    `ddpm`: Ho et al., "Denoising Diffusion Probabilistic Models", 2020, at the timesteps the checkpoint asks
    for. The others are deterministic and begin at the noisiest timestep, however few they are (the "trailing"
    spacing of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024). `ddim`: Song
    et al., "Denoising Diffusion Implicit Models", 2021, with eta 0, as the first order of the solver that
    `dpmpp_2m` is the second order of: Lu et al., "DPM-Solver++", 2022, section 4. `unipc`: Zhao et al.,
    "UniPC", 2023, of second order.
    """
    config = {name: schedule.config[name] for name in _SCHEDULE}
    match sampler:
        case Sampler.DDPM:
            return _ddpm(schedule, steps)
        case Sampler.DDIM | Sampler.DPMPP_2M:
            order = 1 if sampler is Sampler.DDIM else 2
            solver = DPMSolverMultistepScheduler(**config, solver_order=order)
        case Sampler.UNIPC:
            solver = UniPCMultistepScheduler(**config, solver_order=2)
    _set_timesteps(solver, _trailing(schedule, steps))
    return solver


def _ddpm(schedule: DDPMScheduler, steps: int) -> DDPMScheduler:
    """Set the timesteps that the checkpoint's spacing gives.

    Where it spaces them "leading", diffusers rounds their distance down: 600 steps of 1000 would begin at
    600, and 1000 at a timestep there is not. Ours are spread over the whole schedule, and the same as
    diffusers' where `steps` divides it (as 200, 25 and 8 do).
    """
    scheduler = copy.deepcopy(schedule)
    trained = scheduler.config.num_train_timesteps
    if scheduler.config.timestep_spacing == "leading":
        spaced = [index * trained // steps for index in range(steps)]
        offset = min(scheduler.config.steps_offset, trained - 1 - spaced[-1])
        scheduler.set_timesteps(timesteps=[timestep + offset for timestep in reversed(spaced)])
    elif scheduler.config.timestep_spacing == "trailing":
        scheduler.set_timesteps(timesteps=_trailing(schedule, steps))
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def _trailing(schedule: DDPMScheduler, steps: int) -> list[int]:
    """Return timesteps from the noisiest on; diffusers' own are one too many for 61 and other numbers."""
    trained = schedule.config.num_train_timesteps
    return [round((steps - index) * trained / steps) - 1 for index in range(steps)]


def _set_timesteps(
    solver: DPMSolverMultistepScheduler | UniPCMultistepScheduler, timesteps: list[int]
) -> None:
    """Set what their `set_timesteps` would: UniPC's takes no timesteps, and both warn of a call to numpy."""
    sigmas = ((1 - solver.alphas_cumprod) / solver.alphas_cumprod).sqrt()[timesteps]
    solver.timesteps = torch.tensor(timesteps)
    solver.sigmas = torch.cat([sigmas, torch.zeros(1)])
    solver.num_inference_steps = len(timesteps)
