"""Tells from the structure of an uploaded file whether all of it is there, without decoding a pixel.

`service.uploads` asks before it lets Pillow read the header: a decoder would take seconds and hundreds of
megabytes for some files, and even a reader of headers keeps every one of a million tiny segments. What is
whole but cannot be decoded is the worker's to find out.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Photos have some tens of segments; a TIFF with a row to a strip has as many strips as rows.
MAX_PARTS = 10_000
# A few bytes of a progressive JPEG ask for another pass over every pixel; encoders write about ten scans.
MAX_SCANS = 100
# Pillow joins them, copying what it has each time; cameras write one, of up to 64 KiB.
MAX_EXIF_SEGMENTS = 16

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # one with a length, or the end (T.81, B.1.1.3)
_SCAN_OR_END = re.compile(rb"\xff[\xd9\xda]")
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = b"\xff\xd9", b"\xff\xda", b"\xff\xe1"

_BITMAP_CORE_HEADER = 12  # bytes; the header of OS/2, where sides have 16 bits
_BOX_HEADER = 8

_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_TIFF_PLACES = ((273, 279), (324, 325))  # StripOffsets and StripByteCounts, TileOffsets and TileByteCounts


class StructureError(Exception):
    """The file is not whole, or is made of more parts than a picture has."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: Pillow's names for it, and a walk over its parts that ends where the picture does."""

    formats: tuple[str, ...]
    parts: Callable[[bytes], Iterator[None]]


def kind_of(upload: bytes) -> Kind | None:
    """Return the kind of a file by its first bytes; None for one that is not read."""
    return next((kind for magic, kind in _KINDS if magic.match(upload)), None)


def check_structure(upload: bytes, kind: Kind) -> None:
    """Walk over the file from its first part to the end of the picture; what comes after that is ignored.

    Raises `StructureError`.
    """
    try:
        for count, _part in enumerate(kind.parts(upload), 1):
            if count > MAX_PARTS:
                raise StructureError(f"it has more than {MAX_PARTS} parts")
    except (struct.error, OverflowError) as error:  # there is nothing at that offset
        raise StructureError("it breaks off") from error


def _jpeg_parts(upload: bytes) -> Iterator[None]:
    exif_segments = 0
    at = 2
    while True:
        marker = _JPEG_MARKER.search(upload, at, at + MAX_PARTS)
        if marker is None:
            raise StructureError("it breaks off")
        yield from (None for _ in range(at, marker.start()))  # Pillow goes over padding byte by byte
        if marker[0] in {_START_OF_SCAN, _END_OF_IMAGE}:
            break
        (length,) = struct.unpack_from(">H", upload, marker.end())
        exif_segments += marker[0] == _APP1 and upload.startswith(b"Exif\0\0", marker.end() + 2)
        if exif_segments > MAX_EXIF_SEGMENTS:
            raise StructureError(f"it has more than {MAX_EXIF_SEGMENTS} segments of EXIF")
        at = marker.end() + max(2, length)
        yield
    # The coded pixels hold no such marker (T.81, B.1.1.5), and the tables between scans are short.
    scans = 0
    for found in _SCAN_OR_END.finditer(upload, at):  # a third of the time of bytes.find and count
        if found[0] == _END_OF_IMAGE:
            break
        scans += 1
        if scans > MAX_SCANS:
            raise StructureError(f"it has more than {MAX_SCANS} scans")
    else:
        raise StructureError("it breaks off")
    if not scans:
        raise StructureError("it breaks off")


def _png_parts(upload: bytes) -> Iterator[None]:
    at = 8
    kind = b""
    profiles = 0
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", upload, at)
        end = at + 8 + length
        (sum_of_chunk,) = struct.unpack_from(">I", upload, end)
        if zlib.crc32(memoryview(upload)[at + 4 : end]) != sum_of_chunk:
            raise StructureError(f"its chunk {kind.decode('latin-1')} is corrupt")
        profiles += kind == b"iCCP"
        if profiles > 1:  # each may inflate to a megabyte (PNG, 11.3.2.3: at most one)
            raise StructureError("it has more than one colour profile")
        at = end + 4
        yield


def _webp_parts(upload: bytes) -> Iterator[None]:
    (size,) = struct.unpack_from("<I", upload, 4)
    at, end = 12, size + 8
    if end > len(upload) or at == end:
        raise StructureError("it breaks off")
    while at < end:
        (length,) = struct.unpack_from("<I", upload, at + 4)
        at += 8 + length + length % 2
        if at > end + 1:  # some writers leave out the last padding byte
            raise StructureError("it breaks off")
        yield


def _bmp_parts(upload: bytes) -> Iterator[None]:
    offset, header_size = struct.unpack_from("<II", upload, 10)
    if header_size == _BITMAP_CORE_HEADER:
        width, height, _planes, depth = struct.unpack_from("<HHHH", upload, 18)
        compression = 0
    else:
        width, height, _planes, depth, compression = struct.unpack_from("<iiHHI", upload, 18)
    run_length_encoded = compression in {1, 2}
    row = 0 if run_length_encoded else (width * depth + 31) // 32 * 4
    if offset + row * abs(height) > len(upload):
        raise StructureError("it breaks off")
    yield


def _tiff_parts(upload: bytes) -> Iterator[None]:
    order = "<" if upload[:1] == b"I" else ">"
    big = struct.unpack_from(f"{order}H", upload, 2) == (43,)
    count_format, entry_format, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", upload, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{count_format}", upload, at)
    at += struct.calcsize(f"{order}{count_format}")
    entry_size = struct.calcsize(f"{order}{entry_format}") + inline
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(at, at + count * entry_size, entry_size):
        tag, kind, number = struct.unpack_from(f"{order}{entry_format}", upload, entry)
        yield
        if kind not in _TIFF_TYPES or tag not in {place for pair in _TIFF_PLACES for place in pair}:
            continue
        if number > MAX_PARTS:
            raise StructureError(f"it has more than {MAX_PARTS} strips or tiles")
        value_format = f"{order}{number}{_TIFF_TYPES[kind]}"
        value_at = entry + entry_size - inline
        if struct.calcsize(value_format) > inline:
            (value_at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", upload, value_at)
        values[tag] = struct.unpack_from(value_format, upload, value_at)
    for offsets_tag, counts_tag in _TIFF_PLACES:
        offsets = values.get(offsets_tag, ())
        counts = values.get(counts_tag, (0,) * len(offsets))
        if any(offset + length > len(upload) for offset, length in zip(offsets, counts, strict=False)):
            raise StructureError("it breaks off")


def _heif_parts(upload: bytes) -> Iterator[None]:
    """Walk over the boxes of AVIF and HEIC (ISO/IEC 14496-12, 4.2) until what describes and what holds it."""
    wanted = {b"meta", b"mdat"}
    at = 0
    while wanted:
        size, kind = struct.unpack_from(">I4s", upload, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", upload, at + 8)
        if size == 0:
            size = len(upload) - at
        at += size
        if size < _BOX_HEADER or at > len(upload):
            raise StructureError("it breaks off")
        wanted.discard(kind)
        yield


_KINDS = (
    (re.compile(rb"\xff\xd8\xff"), Kind(("JPEG",), _jpeg_parts)),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), Kind(("PNG",), _png_parts)),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), Kind(("WEBP",), _webp_parts)),
    (re.compile(rb"....ftyp", re.DOTALL), Kind(("AVIF", "HEIF"), _heif_parts)),
    (re.compile(rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]"), Kind(("TIFF",), _tiff_parts)),
    (re.compile(rb"BM"), Kind(("BMP",), _bmp_parts)),
)
