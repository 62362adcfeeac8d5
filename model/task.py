"""What is asked of the networks for one face: the images and the parameters, with their ranges.

Made by `model.anonymize` and `model.pipeline`, done by `model.engine`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from PIL import Image

from model.errors import ParameterError

MAX_DEGREE = 2.0
MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_GUIDANCE_SCALE = 20.0

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all), from (0, N) to (N, N); raise `StoppedError` to stop the run."""


class Sampler(StrEnum):
    """How the noise is removed; `ddpm` is the paper's, the others need fewer steps."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    UNIPC = "unipc"

    @property
    def usual_steps(self) -> int:
        """The number of steps that is usual with this sampler."""
        return _USUAL_STEPS[self]


_USUAL_STEPS = {Sampler.DDPM: 200, Sampler.DDIM: 50, Sampler.DPMPP_2M: 25, Sampler.UNIPC: 20}


@dataclass(frozen=True)
class FaceTask:
    """One face to make: `driving`, and `source` where it is a swap, are square faces aligned as in FFHQ.

    Without a source the driving face is anonymized, moved away from its identity by `degree` (0 to 2), which
    has no effect on a swap. Raises `ParameterError` where a number is out of its range: `seed` 0 to 2^63-1,
    `steps` 1 to 1000, `guidance_scale` 0 to 20 (1 or less is off).
    """

    driving: Image.Image
    source: Image.Image | None
    seed: int
    degree: float
    steps: int
    guidance_scale: float
    sampler: Sampler = Sampler.DDPM

    def __post_init__(self) -> None:
        _check_range("d", self.degree, 0, MAX_DEGREE)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("steps", self.steps, 1, MAX_STEPS)
        _check_range("guidance_scale", self.guidance_scale, 0, MAX_GUIDANCE_SCALE)

    @property
    def guided(self) -> bool:
        """Whether each step needs the unconditional prediction too."""
        return self.guidance_scale > 1


def _check_range(name: str, number: float, lowest: float, highest: float) -> None:
    if not lowest <= number <= highest:
        raise ParameterError(f"{name} is {number}, it must be from {lowest} to {highest}")
