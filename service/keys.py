"""API keys with names: read from the environment or a file, kept as digests, compared in constant time.
`service.access` asks them who is calling.
"""

import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("face_anon.service")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[\x21-\x7e]{1,512}")
HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
SHORT_KEY = 16


class KeysError(ValueError):
    """The API keys that were set cannot be read. The sentence never holds a key."""


@dataclass(frozen=True)
class Key:
    """One key: who has it, and what it hashes to. Several keys of one name are one caller."""

    name: str
    digest: bytes


class Keys:
    """The keys of a service; none means that it is open."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    @property
    def names(self) -> list[str]:
        """The names of all callers, sorted."""
        return sorted({key.name for key in self._keys})

    @property
    def open(self) -> bool:
        """Whether everybody may call."""
        return not self._keys

    def name_of(self, sent: str) -> str | None:
        """Return whose key this is; None where it is nobody's.

        Takes the same time whichever key it is, and however much of one is right.
        """
        digest = hashlib.sha256(sent.encode()).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key.name
        return found


def read_keys(listed: str, file: Path | None) -> Keys:
    """Return the keys of a list, `name:key,other:key`, and of a file with one `name:key` a line.

    Instead of a key, `sha256:` and its SHA-256 in hexadecimal may stand. In the file, blank lines and those
    that begin with `#` are passed over. Raises `KeysError` where an entry is none, or the file is not read.
    """
    entries = [("FACE_ANON_API_KEYS", entry) for entry in listed.split(",") if entry.strip()]
    if file is not None:
        entries += [(f"{file}, line {number}", line) for number, line in _lines(file)]
    keys = [_key(place, entry.strip()) for place, entry in entries]
    if file is not None and not keys:
        raise KeysError(f"{file} has no API key: the service would be open")
    return Keys(keys)


def _lines(file: Path) -> list[tuple[int, str]]:
    try:
        lines = file.read_text().splitlines()
        mode = stat.S_IMODE(file.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"the API keys in {file} cannot be read") from error
    if mode & 0o077:
        log.warning("%s holds API keys and others than its owner may open it (mode %o)", file, mode)
    return [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _key(place: str, entry: str) -> Key:
    name, _, key = entry.partition(":")
    if not NAME.fullmatch(name) or not KEY.fullmatch(key):
        raise KeysError(
            f"{place}: an API key is written name:key; the name has letters, digits, '.', '_' and '-', "
            "at most 64, the key visible ASCII characters, at most 512"
        )
    if hashed := HASHED.fullmatch(key):
        return Key(name, bytes.fromhex(hashed[1]))
    if key.startswith("sha256:"):
        raise KeysError(f"{place}: after sha256: come 64 hexadecimal digits")
    if len(key) < SHORT_KEY:
        log.warning("%s: the API key of %s has fewer than %s characters", place, name, SHORT_KEY)
    return Key(name, hashlib.sha256(key.encode()).digest())
