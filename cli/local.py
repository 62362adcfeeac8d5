"""`face-anon anonymize` and `face-anon swap`: one picture from file to file, without a server."""

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from model.anonymize import MAX_SEED, anonymize_face, swap_face
from model.checkpoint import Checkpoint, Precision, load_checkpoint
from model.device import prepare_device
from model.errors import ModelError, PictureError
from model.sampling import OnStep

FAILED = 1
WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class LocalRun:
    """What the two commands have in common."""

    out: Path
    checkpoint: Path
    seed: int | None
    steps: int
    precision: str
    device: str


def run_anonymize(photo: Path, run: LocalRun, *, degree: float, guidance_scale: float) -> int:
    """Anonymize one aligned face; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(checkpoint: Checkpoint, seed: int, on_step: OnStep) -> Image.Image:
        return anonymize_face(
            checkpoint,
            _read(photo),
            seed=seed,
            degree=degree,
            steps=run.steps,
            guidance_scale=guidance_scale,
            on_step=on_step,
        )

    return _run(run, make)


def run_swap(source: Path, driving: Path, run: LocalRun, *, guidance_scale: float) -> int:
    """Swap one aligned face; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(checkpoint: Checkpoint, seed: int, on_step: OnStep) -> Image.Image:
        return swap_face(
            checkpoint,
            _read(source),
            _read(driving),
            seed=seed,
            steps=run.steps,
            guidance_scale=guidance_scale,
            on_step=on_step,
        )

    return _run(run, make)


def _run(run: LocalRun, make: Callable[[Checkpoint, int, OnStep], Image.Image]) -> int:
    seed = secrets.randbelow(MAX_SEED + 1) if run.seed is None else run.seed
    try:
        _check_writable(run.out)
        checkpoint = _load(run.checkpoint, run.precision, run.device)
        with tqdm(total=run.steps, unit="step", desc=f"seed {seed}") as bar:
            face = make(checkpoint, seed, lambda done, _steps: _advance(bar, done))
        face.save(run.out, format=WRITTEN[run.out.suffix.lower()], quality=95, subsampling=0)
    except (ModelError, OSError) as error:
        print(f"face-anon: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    return 0


def _load(folder: Path, precision: str, device: str) -> Checkpoint:
    checkpoint = load_checkpoint(folder, precision=Precision(precision), device=device)
    prepare_device(checkpoint)
    if checkpoint.properties.demonstration:
        print(f"face-anon: demonstration weights ({checkpoint.name})", file=sys.stderr)  # noqa: T201
    return checkpoint


def _advance(bar: "tqdm[NoReturn]", done: int) -> None:
    bar.update(done - bar.n)


def _check_writable(out: Path) -> None:
    if out.suffix.lower() not in WRITTEN:
        raise PictureError(f"{out}: the suffix must be one of {', '.join(WRITTEN)}")
    if not out.parent.is_dir():
        raise PictureError(f"{out.parent}: there is no such folder")


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{file}: not a picture that can be read") from error
