"""`face-anon anonymize` and `swap`: photos from file to file, without a server."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from cli.files import check_writable, fail, read_file, say, written_format
from model.checkpoint import load_checkpoint
from model.device import choose_precision, choose_slots, prepare_device
from model.engine import Engine
from model.errors import ModelError
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.photo import Photo
from model.pipeline import Faces, Made, Pipeline, Sampling, write_made
from model.replace import OnFaceStep
from model.task import MAX_SEED, Sampler


@dataclass(frozen=True)
class LocalRun:
    """What the two commands that make faces have in common; None is what the checkpoint is best used with."""

    out: Path
    checkpoint: Path
    seed: int | None
    sampler: str | None
    steps: int | None
    guidance_scale: float | None
    faces: str
    face_threshold: float
    precision: str
    device: str


def run_anonymize(file: Path, run: LocalRun, *, degree: float | None) -> int:
    """Anonymize one photo; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(pipeline: Pipeline, sampling: Sampling, on_step: OnFaceStep) -> tuple[Photo, Made]:
        photo = read_file(file)
        faces = Faces(run.faces)
        return photo, pipeline.anonymize(photo.pixels, sampling, faces=faces, degree=degree, on_step=on_step)

    return _run(run, make)


def run_swap(source: Path, driving: Path, run: LocalRun) -> int:
    """Swap the faces of one photo; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(pipeline: Pipeline, sampling: Sampling, on_step: OnFaceStep) -> tuple[Photo, Made]:
        identity, photo = read_file(source), read_file(driving)
        faces = Faces(run.faces)
        return photo, pipeline.swap(identity.pixels, photo.pixels, sampling, faces=faces, on_step=on_step)

    return _run(run, make)


def _run(run: LocalRun, make: Callable[[Pipeline, Sampling, OnFaceStep], tuple[Photo, Made]]) -> int:
    seed = secrets.randbelow(MAX_SEED + 1) if run.seed is None else run.seed
    sampler = Sampler(run.sampler) if run.sampler else None
    sampling = Sampling(seed, run.steps, run.guidance_scale, sampler)
    try:
        check_writable(run.out)
        with _load(run) as engine, tqdm(unit="step", desc=f"seed {seed}") as bar:
            pipeline = Pipeline(engine, FaceFinder(run.face_threshold), DlibFaceEmbedder())
            photo, made = make(pipeline, sampling, lambda *progress: _advance(bar, *progress))
        run.out.write_bytes(write_made(made, photo, written_format(run.out)))
    except (ModelError, OSError) as error:
        return fail(error)
    _report(made)
    return 0


def _load(run: LocalRun) -> Engine:
    precision = choose_precision(run.precision, run.device)
    checkpoint = load_checkpoint(run.checkpoint, precision=precision, device=run.device)
    prepare_device(checkpoint)
    if checkpoint.properties.demonstration:
        say(f"demonstration weights ({checkpoint.name})")
    return Engine(checkpoint, slots=choose_slots(checkpoint))


def _advance(bar: "tqdm[NoReturn]", face: int, faces: int, done: int, steps: int) -> None:
    bar.total = faces * steps
    bar.update((face - 1) * steps + done - bar.n)


def _report(made: Made) -> None:
    """Say what became of each face: one that was not replaced must not go unnoticed."""
    if not made.photo.faces:
        say("no face was found: the photo is as it was")
    for index, face in enumerate(made.photo.faces):
        distance = face.identity_distance
        measured = "" if distance is None else f", identity distance {distance:.2f}"
        warnings = "".join(f", {warning}" for warning in face.warnings)
        say(f"face {index}: {face.status}, seed {face.seed}{measured}{warnings}")
    if made.photo.left_alone:
        say(f"{made.photo.left_alone} smaller face(s) were left as they were, as asked")
