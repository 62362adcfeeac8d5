"""Which photos `face-anon submit` sends, and where in the output folder each result goes."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp"}
SUFFIXES_OF = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "image/avif": (".avif",),
}


class PlanError(Exception):
    """What was asked for cannot be done without losing a file; nothing has been sent."""


@dataclass(frozen=True)
class Photo:
    """One photo: its file, and the name of its result in the output folder without a suffix."""

    source: Path
    stem: Path

    def output(self, media_type: str) -> Path:
        """Return the name of its result: with its own suffix where that stands for `media_type`."""
        suffixes = SUFFIXES_OF.get(media_type, ("",))
        own = self.source.suffix
        return self.stem.with_name(self.stem.name + (own if own.lower() in suffixes else suffixes[0]))

    def possible_outputs(self) -> list[Path]:
        """Return every name that its result may get."""
        suffixes = [suffix for several in SUFFIXES_OF.values() for suffix in several]
        return [self.stem.with_name(self.stem.name + suffix) for suffix in (*suffixes, self.source.suffix)]


def find_photos(paths: Sequence[Path], out: Path) -> list[Photo]:
    """Return the photos in `paths`, each once: a file as it is, a folder with its subfolders by suffix.

    Hidden files are left out, and so is `out` where it lies in a folder. The structure of a folder is kept,
    under its own name where several are given. Raises `PlanError` where there is no photo, or two would get
    one name.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for path in paths:
        if path.is_dir():
            root = Path() if len(paths) == 1 else Path(path.resolve().name)
            for file in _photos_below(path, out.resolve()):
                found.setdefault(file.resolve(), (file, root / file.relative_to(path)))
        else:
            found.setdefault(path.resolve(), (path, Path(path.name)))
    stems = Counter(name.with_suffix("") for _, name in found.values())
    photos = [
        Photo(file, name if stems[name.with_suffix("")] > 1 else name.with_suffix(""))
        for file, name in found.values()
    ]
    if not photos:
        raise PlanError(f"there is no photo in {', '.join(map(str, paths))}")
    _check_names(photos)
    return photos


def _photos_below(folder: Path, out: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() != out
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES:
                yield here / name


def _check_names(photos: Sequence[Photo]) -> None:
    taken: dict[Path, Path] = {}
    for photo in photos:
        other = taken.setdefault(photo.stem, photo.source)
        if other is not photo.source:
            raise PlanError(
                f"{other} and {photo.source} would both be written to {photo.stem}: give them an --out each"
            )
