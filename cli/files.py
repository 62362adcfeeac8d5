"""Photos from and to files, and sentences on stderr: what the commands without a server share."""

import sys
from pathlib import Path

from model.errors import PictureError
from model.photo import Photo, PhotoFormat, read_photo

FAILED = 1
WRITTEN = {
    ".png": PhotoFormat.PNG,
    ".jpg": PhotoFormat.JPEG,
    ".jpeg": PhotoFormat.JPEG,
    ".webp": PhotoFormat.WEBP,
    ".avif": PhotoFormat.AVIF,
}


def read_file(file: Path) -> Photo:
    """Read a photo; raises `PictureError` with the file's name."""
    try:
        return read_photo(file.read_bytes())
    except PictureError as error:
        raise PictureError(f"{file}: {error}") from error


def check_writable(out: Path) -> None:
    """Find out before the work whether `out` can be written; raises `PictureError` where not."""
    written_format(out)
    if not out.parent.is_dir():
        raise PictureError(f"{out.parent}: there is no such folder")


def written_format(out: Path) -> PhotoFormat:
    """Return the format that a file's suffix stands for; raises `PictureError` where there is none."""
    if out.suffix.lower() not in WRITTEN:
        raise PictureError(f"{out}: the suffix must be one of {', '.join(WRITTEN)}")
    return WRITTEN[out.suffix.lower()]


def fail(error: Exception) -> int:
    """Say what went wrong and return the exit code for it."""
    say(str(error))
    return FAILED


def say(sentence: str) -> None:
    """Print a sentence for people to stderr."""
    print(f"face-anon: {sentence}", file=sys.stderr)  # noqa: T201
