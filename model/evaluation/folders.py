"""Evaluates a folder of photos against a folder of results, matched by file name: no truth is known here.

The project's own finder, face mesh and identity network measure both sides (`model.faces`); `report.py`
writes what comes out. A face that is no longer found in the result is counted, and measured no further.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import AlignmentError, ModelError, PictureError
from model.evaluation.estimates import estimate
from model.evaluation.expressions import Expression, expression_of
from model.evaluation.findings import FaceRecord, Findings, Row, Table
from model.evaluation.presence import Finder
from model.faces.face import Face
from model.faces.identity import Embedding, FaceEmbedder
from model.faces.landmarks import FaceMesh
from model.photo import Pixels, read_photo
from model.renderer.parameters import Floats

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".tif", ".tiff", ".bmp"}
# A face of the result is that of the photo if their centres lie within this part of its width.
NEAR = 0.5


@dataclass(frozen=True)
class Pair:
    """A photo and its result."""

    name: str
    photo: Path
    result: Path


@dataclass(frozen=True)
class Seen:
    """One face as the networks see it; without landmarks there is no embedding, without a mesh no
    expression.
    """

    face: Face
    embedding: Embedding | None
    expression: Expression | None


@dataclass(frozen=True)
class Looker:
    """The networks that look at photos and results."""

    finder: Finder
    mesh: FaceMesh
    embedder: FaceEmbedder

    def look(self, pixels: Pixels) -> list[Seen]:
        """Return every face in a photo with what can be measured of it."""
        return [
            Seen(face, self._embedded(pixels, face), expression_of(self.mesh, pixels, face))
            for face in self.finder.find(pixels)
        ]

    def _embedded(self, pixels: Pixels, face: Face) -> Embedding | None:
        try:
            return self.embedder.embed(pixels, face.landmarks) if face.landmarks else None
        except AlignmentError:
            return None


def pairs_of(photos: Path, results: Path) -> tuple[list[Pair], list[str]]:
    """Return the photos that have a result of the same name but for the suffix, and the names that have none.

    Raises PictureError where a folder is not there, two files share a name, or no photo has a result.
    """
    before, after = _by_stem(photos), _by_stem(results)
    pairs = [Pair(stem, before[stem], after[stem]) for stem in sorted(before.keys() & after.keys())]
    if not pairs:
        raise PictureError(f"no picture in {results} has the name of one in {photos}")
    return pairs, sorted(before.keys() ^ after.keys())


def evaluate_folders(
    looker: Looker,
    photos: Path,
    results: Path,
    on_pair: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Compare each face of each photo with the face at its place in the result.

    Raises PictureError, naming the file, where one cannot be read, and what `pairs_of` raises.
    """
    pairs, unpaired = pairs_of(photos, results)
    befores: list[Seen] = []
    afters: list[Seen | None] = []
    names: list[tuple[str, int]] = []
    for pair in pairs:
        before, after = (looker.look(_read(file)) for file in (pair.photo, pair.result))
        matched = _matched(before, after)
        befores += before
        afters += matched
        names += [(pair.name, index) for index in range(len(before))]
        on_pair(pair.name)
    if not befores:
        raise PictureError(f"no face was found in the {len(pairs)} photos of {photos}")
    columns = _columns(looker.embedder, befores, afters)
    table = Table(
        key="folders",
        title="Results against photos",
        note="Differences between the faces of the photos and those at their places in the results. The "
        "random pair is two faces of different photos.",
        rows=(_row("results", columns),),
        anchors=(_row("a random pair", _random(looker.embedder, befores, names)),),
    )
    faces = tuple(
        FaceRecord(
            file=name,
            face=index,
            found=after is not None,
            values={
                key: float(values[number])
                for key, values in columns.items()
                if key != "found" and not np.isnan(values[number])
            },
        )
        for number, ((name, index), after) in enumerate(zip(names, afters, strict=True))
    )
    run = {
        "photos": str(photos),
        "results": str(results),
        "pictures compared": str(len(pairs)),
        "faces found in the photos": str(len(befores)),
        "threshold of the same person": f"{looker.embedder.threshold:g}",
    }
    left_out = tuple(f"{name}: only in one of the folders" for name in unpaired)
    return Findings(title="Evaluation of results", run=run, tables=(table,), left_out=left_out, faces=faces)


def _columns(
    embedder: FaceEmbedder, befores: Sequence[Seen], afters: Sequence[Seen | None]
) -> dict[str, Floats]:
    """Return one value a face for every measure, NaN where it could not be measured."""
    distance, own = [], []
    for number, after in enumerate(afters):
        embedded = after.embedding if after else None
        away = [_distance(embedder, one.embedding, embedded) for one in befores]
        known = not np.isnan(away[number])
        distance.append(away[number])
        own.append(float(np.nanargmin(away) == number) if known else np.nan)
    distances = np.asarray(distance)
    recognizable = np.where(np.isnan(distances), np.nan, distances < embedder.threshold)
    return {
        "found": np.asarray([after is not None for after in afters], np.float64),
        "identity_distance": distances,
        "recognizable": recognizable,
        "re_identified": np.asarray(own),
        **_differences(befores, afters),
    }


def _random(
    embedder: FaceEmbedder, befores: Sequence[Seen], names: Sequence[tuple[str, int]]
) -> dict[str, Floats]:
    """Return the measures of each face against the first face of the next photo."""
    others: list[Seen | None] = []
    for number, (name, _) in enumerate(names):
        later = (*range(number + 1, len(names)), *range(number))
        others.append(next((befores[other] for other in later if names[other][0] != name), None))
    distances = [
        _distance(embedder, one.embedding, other.embedding if other else None)
        for one, other in zip(befores, others, strict=True)
    ]
    return {"identity_distance": np.asarray(distances), **_differences(befores, others)}


def _differences(befores: Sequence[Seen], afters: Sequence[Seen | None]) -> dict[str, Floats]:
    def of(name: str) -> Floats:
        pairs = [
            (one.expression, other.expression if other else None)
            for one, other in zip(befores, afters, strict=True)
        ]
        return np.asarray(
            [
                abs(getattr(one, name) - getattr(other, name)) if one and other else np.nan
                for one, other in pairs
            ]
        )

    return {name: of(name) for name in ("yaw", "pitch", "roll", "mouth_open", "eyes_open")}


def _distance(embedder: FaceEmbedder, one: Embedding | None, other: Embedding | None) -> float:
    return np.nan if one is None or other is None else embedder.distance(one, other)


def _row(label: str, columns: dict[str, Floats]) -> Row:
    estimates = {name: estimate(values) for name, values in columns.items()}
    return Row(label=label, values={name: one for name, one in estimates.items() if one})


def _matched(before: Sequence[Seen], after: Sequence[Seen]) -> list[Seen | None]:
    """Return for each face of the photo the nearest of the result, where one lies near enough."""
    left = list(after)
    matched: list[Seen | None] = []
    for one in before:
        nearest = min(left, key=lambda other: _apart(one.face, other.face), default=None)
        if nearest is None or _apart(one.face, nearest.face) > NEAR * one.face.box.width:
            matched.append(None)
            continue
        left.remove(nearest)
        matched.append(nearest)
    return matched


def _apart(one: Face, other: Face) -> float:
    x = one.box.x + one.box.width / 2 - other.box.x - other.box.width / 2
    y = one.box.y + one.box.height / 2 - other.box.y - other.box.height / 2
    return float(np.hypot(x, y))


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PictureError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            if file.stem in found:
                raise PictureError(f"{folder}: {found[file.stem].name} and {file.name} have the same name")
            found[file.stem] = file
    return found


def _read(file: Path) -> Pixels:
    try:
        return read_photo(file.read_bytes()).pixels
    except (ModelError, OSError) as error:
        raise PictureError(f"{file}: {error}") from error
