"""The samplers, with networks whose right answer is known: they arrive where they should, on any schedule."""

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Generator, Tensor

from model.checkpoint import Defaults
from model.samplers import FaceSampler, scheduler_for
from model.task import Sampler

SHAPE = (1, 4, 8, 8)
PUBLISHED = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
}
SCHEDULES = {
    "published": DDPMScheduler(**PUBLISHED, steps_offset=1, timestep_spacing="leading"),
    "zero terminal SNR": DDPMScheduler(**PUBLISHED, timestep_spacing="trailing", rescale_betas_zero_snr=True),
}
DETERMINISTIC = [Sampler.DDIM, Sampler.DPMPP_2M, Sampler.UNIPC]


def draw(seed: int) -> Tensor:
    """Return noise of the shape of latents."""
    return torch.randn(SHAPE, generator=Generator().manual_seed(seed))


def sample(
    schedule: DDPMScheduler, sampler: Sampler, steps: int, denoiser: Callable[[Tensor, float], Tensor]
) -> Tensor:
    """Sample from noise with a network that knows the clean latents for (latents, alpha_bar)."""
    face = FaceSampler(schedule, sampler, steps, Generator().manual_seed(2))
    latents = face.begin(draw(1))
    for done in range(steps):
        assert (face.done, face.finished) == (done, False)
        alpha_bar = schedule.alphas_cumprod[face.timestep].item()
        clean = denoiser(latents, alpha_bar)
        noise = (latents - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5
        latents = face.advance(alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean, latents)
    assert face.finished
    return latents


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", list(Sampler))
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 48, 61, 103])
def test_a_network_that_knows_the_answer_gets_it(schedule: str, sampler: Sampler, steps: int) -> None:
    """Whatever the schedule and the number of steps, sampling ends at the clean latents it predicts."""
    answer = draw(3)
    found = sample(SCHEDULES[schedule], sampler, steps, lambda _latents, _alpha_bar: answer)
    assert (found - answer).abs().max() < 1e-2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize("steps", [599, 1000])
def test_any_number_of_steps_up_to_the_schedules_is_taken(
    schedule: str, sampler: Sampler, steps: int
) -> None:
    """Timesteps fall strictly from the noisiest one, as many as asked for."""
    timesteps = scheduler_for(SCHEDULES[schedule], steps, sampler).timesteps.tolist()
    assert len(set(timesteps)) == steps
    assert timesteps == sorted(timesteps, reverse=True)
    assert timesteps[0] == 999
    assert timesteps[-1] in {0, 1}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_second_order_is_nearer_to_the_exact_solution(schedule: str) -> None:
    """For normally distributed latents the probability flow is known: 20 steps of DPM-Solver++ and UniPC come
    nearer to it than 20 of DDIM, and DDIM than 5 of its own.
    """
    spread = 0.3

    def best(latents: Tensor, alpha_bar: float) -> Tensor:
        return latents * (alpha_bar**0.5 * spread**2 / (alpha_bar * spread**2 + 1 - alpha_bar))

    last = SCHEDULES[schedule].alphas_cumprod[-1].item()
    exact = draw(1) * (spread / (last * spread**2 + 1 - last) ** 0.5)

    def distance(sampler: Sampler, steps: int) -> float:
        found = sample(SCHEDULES[schedule], sampler, steps, best)
        return float((found - exact).abs().mean() / exact.abs().mean())

    assert distance(Sampler.DDIM, 20) < distance(Sampler.DDIM, 5) < 1
    assert distance(Sampler.DPMPP_2M, 20) < 0.9 * distance(Sampler.DDIM, 20)
    assert distance(Sampler.UNIPC, 20) < 0.9 * distance(Sampler.DDIM, 20)


def test_ddim_is_diffusers_ddim() -> None:
    """Where diffusers' own DDIM takes the same timesteps, it arrives at the same latents."""
    theirs = DDIMScheduler(**PUBLISHED, timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.set_timesteps(50)
    latents = draw(1)
    for timestep in theirs.timesteps:
        latents = theirs.step(latents.tanh(), timestep, latents, eta=0.0).prev_sample
    ours = FaceSampler(SCHEDULES["published"], Sampler.DDIM, 50, Generator())
    found = ours.begin(draw(1))
    while not ours.finished:
        found = ours.advance(found.tanh(), found)
    assert torch.allclose(found, latents, atol=1e-4)


def test_faces_do_not_share_a_sampler() -> None:
    """Two faces that step in turn end as each does alone."""
    for sampler in Sampler:
        alone = sample(SCHEDULES["published"], sampler, 4, lambda latents, _alpha_bar: latents.tanh())
        one, other = (
            FaceSampler(SCHEDULES["published"], sampler, 4, Generator().manual_seed(2)) for _ in range(2)
        )
        found = [one.begin(draw(1)), other.begin(draw(5))]
        while not one.finished:
            for index, face in enumerate((one, other)):
                alpha_bar = SCHEDULES["published"].alphas_cumprod[face.timestep].item()
                clean = found[index].tanh()
                noise = (found[index] - alpha_bar**0.5 * clean) / (1 - alpha_bar) ** 0.5
                v = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean
                found[index] = face.advance(v, found[index])
        assert torch.equal(found[0], alone)


def test_the_usual_steps_are_taken_with_another_sampler_than_the_checkpoints() -> None:
    """The checkpoint's number of steps belongs to its own sampler."""
    defaults = Defaults(sampler=Sampler.DPMPP_2M, steps=12)
    assert defaults.steps_of(Sampler.DPMPP_2M) == 12
    usual = {sampler: defaults.steps_of(sampler) for sampler in Sampler if sampler is not Sampler.DPMPP_2M}
    assert usual == {Sampler.DDPM: 200, Sampler.DDIM: 50, Sampler.UNIPC: 20}
