"""Pictures that break off: every kind of file, cut at each point of its structure. `hostile_pictures` has the
rest of what is sent to the service; `test_hostile` sends it.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

HEIC = Path(__file__).parent.parent / "samples" / "turned.heic"


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """Return a picture with something in every pixel, the same each time."""
    y, x = np.mgrid[:height, :width]
    levels = np.stack([x * 5, y * 7, x * y], axis=-1) % 256
    return Image.fromarray(levels.astype(np.uint8)).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the picture as a file of Pillow's."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg_segments(jpeg: bytes) -> list[tuple[str, int]]:
    """Return the name and the offset of each segment up to the first scan, and of the end."""
    found = []
    at = 2
    while jpeg[at : at + 2] != b"\xff\xda":
        found.append((f"{jpeg[at + 1]:02x}-{len(found)}", at))
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return [*found, ("scan", at), ("scan-data", at + 2 + jpeg[at + 3]), ("end", len(jpeg) - 2)]


def png_chunks(png: bytes) -> list[tuple[str, int]]:
    """Return the name and the offset of each chunk."""
    found = []
    at = 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        found.append((f"{png[at + 4 : at + 8].decode()}-{len(found)}", at))
        at += 12 + length
    return found


def webp_chunks(webp: bytes) -> list[tuple[str, int]]:
    """Return the name and the offset of each chunk."""
    found = []
    at = 12
    while at < len(webp):
        length = int.from_bytes(webp[at + 4 : at + 8], "little")
        found.append((f"{webp[at : at + 4].decode().strip()}-{len(found)}", at))
        at += 8 + length + length % 2
    return found


def boxes(heif: bytes, start: int = 0, end: int | None = None) -> list[tuple[str, int]]:
    """Return the name and the offset of each box of an AVIF or HEIC, those within `meta` too."""
    found = []
    at = start
    while at < (len(heif) if end is None else end):
        size, kind = struct.unpack_from(">I4s", heif, at)
        found.append((f"{kind.decode()}-{at}", at))
        if kind in {b"meta", b"iprp", b"ipco"}:
            found += boxes(heif, at + (12 if kind == b"meta" else 8), at + size)
        at += size
    return found


def tiff_points(tiff: bytes) -> list[tuple[str, int]]:
    """Return the offset of the directory, of each of its entries, and of the first strip."""
    (directory,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, directory)
    entries = [(f"entry-{n}", directory + 2 + 12 * n) for n in range(count)]
    strip = next(
        struct.unpack_from("<I", tiff, at + 8)[0]
        for _, at in entries
        if tiff[at : at + 2] == struct.pack("<H", 273)
    )
    return [("directory", directory), *entries, ("strip", strip)]


def points_of(kind: str, whole: bytes) -> list[tuple[str, int]]:
    """Return every point of a file where a part of it begins."""
    match kind.partition("-")[0]:
        case "jpeg":
            return jpeg_segments(whole)
        case "png":
            return png_chunks(whole)
        case "webp":
            return webp_chunks(whole)
        case "tiff":
            return tiff_points(whole)
        case "bmp":
            return [("header", 14), ("sides", 18), ("depth", 28), ("pixels", 54)]
        case _:
            return boxes(whole)


def whole_pictures() -> dict[str, bytes]:
    """Return one whole file of each kind."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": saved(picture(), "JPEG", exif=exif, comment=b"comment", icc_profile=b"profile" * 20),
        "jpeg-progressive": saved(picture(), "JPEG", progressive=True),
        "png": saved(picture(), "PNG", exif=exif, dpi=(72, 72)),
        "webp-lossy": saved(picture(), "WEBP", exif=exif, icc_profile=b"profile"),
        "webp-lossless": saved(picture(), "WEBP", lossless=True),
        "tiff": saved(picture(), "TIFF"),
        "tiff-lzw": saved(picture(), "TIFF", compression="tiff_lzw"),
        "bmp": saved(picture(), "BMP"),
        "avif": saved(picture(), "AVIF"),
        "heic": HEIC.read_bytes(),
    }


def cuts() -> Iterator[tuple[str, bytes]]:
    """Yield each whole file cut before each of its parts, 5 bytes into each, and one byte before its end."""
    for kind, whole in whole_pictures().items():
        for name, at in points_of(kind, whole):
            if at:
                yield f"{kind}-before-{name}", whole[:at]
            if at + 5 < len(whole):
                yield f"{kind}-in-{name}", whole[: at + 5]
        yield f"{kind}-last-byte", whole[:-1]
