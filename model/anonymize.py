"""Anonymizes or swaps one aligned face, from an image to an image: an engine with one slot, for a notebook.

Whole photos, and many at once, are `model.pipeline`'s.
"""

from PIL import Image

from model.checkpoint import Checkpoint
from model.engine import Engine
from model.task import FaceTask, OnStep, Sampler


def anonymize_face(
    checkpoint: Checkpoint,
    image: Image.Image,
    *,
    seed: int,
    degree: float | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: Sampler | None = None,
    on_step: OnStep | None = None,
) -> Image.Image:
    """Return another face with the image's expression, pose, gaze and background.

    `image` is a square face aligned as in FFHQ, of any size; the result has the model's resolution.
    `degree` (0 to 2) is the distance from the original identity, 1.2 to 1.3 recommended. The same seed
    (0 to 2^63-1), image and parameters give the same bytes. Without guidance (`guidance_scale` <= 1)
    a step costs half. What is left out is what the checkpoint is best used with; `steps`, with another
    sampler than that, are the usual ones. Raises `ParameterError`, and whatever `on_step` raises.
    """
    return _make(checkpoint, image, None, seed, degree, steps, guidance_scale, sampler, on_step)


def swap_face(
    checkpoint: Checkpoint,
    source: Image.Image,
    driving: Image.Image,
    *,
    seed: int,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: Sampler | None = None,
    on_step: OnStep | None = None,
) -> Image.Image:
    """Return the identity of `source` with everything else of `driving`; otherwise as `anonymize_face`."""
    return _make(checkpoint, driving, source, seed, None, steps, guidance_scale, sampler, on_step)


def _make(
    checkpoint: Checkpoint,
    driving: Image.Image,
    source: Image.Image | None,
    seed: int,
    degree: float | None,
    steps: int | None,
    guidance_scale: float | None,
    sampler: Sampler | None,
    on_step: OnStep | None,
) -> Image.Image:
    defaults = checkpoint.properties.defaults
    sampler = sampler or defaults.sampler
    task = FaceTask(
        driving=driving,
        source=source,
        seed=seed,
        degree=defaults.d if degree is None else degree,
        steps=defaults.steps_of(sampler) if steps is None else steps,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
        sampler=sampler,
    )
    with Engine(checkpoint, slots=1) as engine:
        return engine.submit(task, job="one face", on_step=on_step).result()
