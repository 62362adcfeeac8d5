"""What `face-anon submit` has done in an output folder, so that it can go on where it was stopped, or killed:
JSON lines, each written to the disk before the step that it announces.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

NAME = ".face-anon-submit.jsonl"


class JournalError(Exception):
    """The journal cannot be used."""


class Stage(StrEnum):
    """How far a photo has come; what is not done is begun anew, or picked up by its idempotency key."""

    SUBMITTED = "submitted"
    SAVING = "saving"
    DONE = "done"
    ENDED = "ended"
    """Without a picture: the next run sends it with a key of its own."""


@dataclass(frozen=True)
class Entry:
    """How far one photo has come, with the digest of everything that was sent for it."""

    source: str
    fingerprint: str
    key: str
    stage: Stage
    output: str | None = None
    row: dict[str, Any] | None = None


class Journal:
    """The entries of one output folder, the latest for each photo."""

    def __init__(self, file: TextIO, entries: dict[str, Entry]) -> None:
        self._file = file
        self._entries = entries

    def latest(self, source: Path) -> Entry | None:
        """Return how far a photo had come."""
        return self._entries.get(str(source.resolve()))

    def write(self, entry: Entry) -> Entry:
        """Write an entry to the disk and return it. What an earlier one said of the output stays true."""
        earlier = self._entries.get(entry.source)
        if entry.output is None and earlier is not None:
            entry = replace(entry, output=earlier.output)
        self._file.write(json.dumps(asdict(entry)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries[entry.source] = entry
        return entry


@contextlib.contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of an output folder for one process; makes the folder where there is none.

    Raises `JournalError` where another process has it, `OSError` where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        _lock(file, folder)
        file.seek(0)
        text = file.read()
        if text and not text.endswith("\n"):  # killed while it wrote
            file.write("\n")
        yield Journal(file, dict(_entries(text)))


def _entries(text: str) -> Iterator[tuple[str, Entry]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a line that was cut off
            fields = json.loads(line)
            entry = Entry(**{**fields, "stage": Stage(fields["stage"])})
            yield entry.source, entry


def _lock(file: TextIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(f"another face-anon submit is writing to {folder}") from error
