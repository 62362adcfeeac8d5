"""`face-anon anonymize`, `swap` and `detect`: photos from file to file, without a server."""

import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from model.faces.detection import FaceFinder
from model.faces.drawing import draw_faces
from tqdm import tqdm

from model.anonymize import MAX_SEED
from model.checkpoint import Precision, load_checkpoint
from model.device import prepare_device
from model.errors import ModelError, PictureError
from model.faces.identity import DlibFaceEmbedder
from model.photo import Photo, PhotoFormat, read_photo, write_photo
from model.pipeline import Faces, Made, Pipeline, Sampling
from model.replace import FaceStatus, OnFaceStep

FAILED = 1
WRITTEN = {
    ".png": PhotoFormat.PNG,
    ".jpg": PhotoFormat.JPEG,
    ".jpeg": PhotoFormat.JPEG,
    ".webp": PhotoFormat.WEBP,
    ".avif": PhotoFormat.AVIF,
}


@dataclass(frozen=True)
class LocalRun:
    """What the two commands that make faces have in common."""

    out: Path
    checkpoint: Path
    seed: int | None
    steps: int
    guidance_scale: float
    faces: str
    face_threshold: float
    precision: str
    device: str


def run_anonymize(file: Path, run: LocalRun, *, degree: float) -> int:
    """Anonymize one photo; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(pipeline: Pipeline, sampling: Sampling, on_step: OnFaceStep) -> tuple[Photo, Made]:
        photo = _read(file)
        faces = Faces(run.faces)
        return photo, pipeline.anonymize(photo.pixels, sampling, faces=faces, degree=degree, on_step=on_step)

    return _run(run, make)


def run_swap(source: Path, driving: Path, run: LocalRun) -> int:
    """Swap the faces of one photo; returns the exit code, 1 with a sentence on stderr for an error."""

    def make(pipeline: Pipeline, sampling: Sampling, on_step: OnFaceStep) -> tuple[Photo, Made]:
        identity, photo = _read(source), _read(driving)
        faces = Faces(run.faces)
        return photo, pipeline.swap(identity.pixels, photo.pixels, sampling, faces=faces, on_step=on_step)

    return _run(run, make)


def run_detect(file: Path, drawing: Path | None, *, face_threshold: float) -> int:
    """Print the faces of one photo as JSON; returns the exit code, as the others do."""
    try:
        if drawing is not None:
            _check_writable(drawing)
        photo = _read(file)
        faces = FaceFinder(face_threshold).find(photo.pixels)
        if drawing is not None:
            drawn = draw_faces(photo.pixels, faces)
            drawing.write_bytes(write_photo(drawn, None, _written_format(drawing), synthetic=False))
    except (ModelError, OSError) as error:
        return _fail(error)
    height, width = photo.pixels.shape[:2]
    found = [
        {
            "box": [round(side, 1) for side in (face.box.x, face.box.y, face.box.width, face.box.height)],
            "score": round(face.score, 3),
            "landmarks": face.landmarks
            and {
                name: [round(coordinate, 1) for coordinate in point]
                for name, point in asdict(face.landmarks).items()
            },
        }
        for face in faces
    ]
    print(json.dumps({"width": width, "height": height, "faces": found}, indent=2))  # noqa: T201
    return 0


def _run(run: LocalRun, make: Callable[[Pipeline, Sampling, OnFaceStep], tuple[Photo, Made]]) -> int:
    seed = secrets.randbelow(MAX_SEED + 1) if run.seed is None else run.seed
    sampling = Sampling(seed, run.steps, run.guidance_scale)
    try:
        _check_writable(run.out)
        pipeline = _load(run)
        with tqdm(unit="step", desc=f"seed {seed}") as bar:
            photo, made = make(pipeline, sampling, lambda *progress: _advance(bar, *progress))
        pixels = made.photo.pixels
        replaced = any(face.status is FaceStatus.REPLACED for face in made.photo.faces)
        alpha = photo.alpha if pixels.shape == photo.pixels.shape else None
        run.out.write_bytes(write_photo(pixels, alpha, _written_format(run.out), synthetic=replaced))
    except (ModelError, OSError) as error:
        return _fail(error)
    _report(made)
    return 0


def _load(run: LocalRun) -> Pipeline:
    checkpoint = load_checkpoint(run.checkpoint, precision=Precision(run.precision), device=run.device)
    prepare_device(checkpoint)
    if checkpoint.properties.demonstration:
        _say(f"demonstration weights ({checkpoint.name})")
    return Pipeline(checkpoint, FaceFinder(run.face_threshold), DlibFaceEmbedder())


def _advance(bar: "tqdm[NoReturn]", face: int, faces: int, done: int, steps: int) -> None:
    bar.total = faces * steps
    bar.update((face - 1) * steps + done - bar.n)


def _report(made: Made) -> None:
    """Say what became of each face: one that was not replaced must not go unnoticed."""
    if not made.photo.faces:
        _say("no face was found: the photo is as it was")
    for index, face in enumerate(made.photo.faces):
        distance = face.identity_distance
        measured = "" if distance is None else f", identity distance {distance:.2f}"
        warnings = "".join(f", {warning}" for warning in face.warnings)
        _say(f"face {index}: {face.status}, seed {face.seed}{measured}{warnings}")
    if made.photo.left_alone:
        _say(f"{made.photo.left_alone} smaller face(s) were left as they were, as asked")


def _check_writable(out: Path) -> None:
    _written_format(out)
    if not out.parent.is_dir():
        raise PictureError(f"{out.parent}: there is no such folder")


def _written_format(out: Path) -> PhotoFormat:
    if out.suffix.lower() not in WRITTEN:
        raise PictureError(f"{out}: the suffix must be one of {', '.join(WRITTEN)}")
    return WRITTEN[out.suffix.lower()]


def _read(file: Path) -> Photo:
    try:
        return read_photo(file.read_bytes())
    except PictureError as error:
        raise PictureError(f"{file}: {error}") from error


def _fail(error: Exception) -> int:
    _say(str(error))
    return FAILED


def _say(sentence: str) -> None:
    print(f"face-anon: {sentence}", file=sys.stderr)  # noqa: T201
