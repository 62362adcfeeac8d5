"""Whole files that are hostile or odd: bombs, lies in headers, two files in one, rare kinds of pictures. Each
says how it may end, by the code of the problem, of the failed job, or `succeeded`.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hostile_cuts import cuts, picture, saved, whole_pictures
from PIL import Image, ImageCms, PngImagePlugin

REFUSED = frozenset({"not_a_picture", "broken_picture"})
DONE = frozenset({"succeeded"})
UNREADABLE = frozenset({"unreadable_picture"})
TOO_MANY = frozenset({"too_many_pixels"})
TOO_LONG = frozenset({"side_too_long"})
MEGA = 1_000_000


@dataclass(frozen=True)
class Upload:
    """A file that is sent, and the codes it may end with."""

    name: str
    content: bytes
    ends: frozenset[str]
    faces: str = "all"


def chunk(kind: bytes, body: bytes, *, length: int | None = None, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG, with a wrong length or sum where asked."""
    size = len(body) if length is None else length
    total = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", size) + kind + body + struct.pack(">I", total)


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    pixels: bytes,
    *,
    extra: bytes = b"",
    interlaced: int = 0,
) -> bytes:
    """Return a PNG written chunk by chunk; `pixels` are deflated already."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff(entries: list[tuple[int, int, int, bytes]], rest: bytes = b"") -> bytes:
    """Return a TIFF whose directory has these (tag, type, count, value or offset), followed by `rest`."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"II\x2a\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + rest


def tiff_of(width: int, height: int, strips: tuple[int, bytes, bytes], rest: bytes = b"") -> bytes:
    """Return a grey TIFF with sides and strips as said: their count, offsets and lengths."""
    count, offsets, lengths = strips
    long = struct.Struct("<I").pack
    return tiff(
        [
            (256, 4, 1, long(width)),
            (257, 4, 1, long(height)),
            (258, 3, 1, long(8)),
            (259, 3, 1, long(1)),
            (262, 3, 1, long(1)),
            (273, 4, count, offsets),
            (277, 3, 1, long(1)),
            (278, 4, 1, long(1)),
            (279, 4, count, lengths),
        ],
        rest,
    )


def patched(whole: bytes, at: int, value: bytes) -> bytes:
    """Return the file with some bytes replaced."""
    return whole[:at] + value + whole[at + len(value) :]


def jpeg_of(width: int, height: int) -> bytes:
    """Return a JPEG whose header lies about its sides."""
    whole = whole_pictures()["jpeg"]
    return patched(whole, whole.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def after_header(jpeg: bytes, segments: bytes) -> bytes:
    """Return the JPEG with segments put behind its start."""
    return jpeg[:2] + segments + jpeg[2:]


def segment(marker: int, body: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def bombs() -> Iterator[Upload]:
    """Yield what would take far more time or memory than its bytes say."""
    yield from _jpeg_bombs()
    yield from _png_bombs()
    yield from _other_bombs()


def _jpeg_bombs() -> Iterator[Upload]:
    whole = whole_pictures()
    jpeg = whole["jpeg"]
    yield Upload("jpeg-65500-square", jpeg_of(65_500, 65_500), TOO_MANY)
    yield Upload("jpeg-65535-square", jpeg_of(65_535, 65_535), TOO_MANY)
    yield Upload("jpeg-header-larger-than-scan", jpeg_of(4_000, 4_000), UNREADABLE | DONE)
    yield Upload("jpeg-65535-wide", jpeg_of(65_535, 1), TOO_LONG)
    yield Upload("jpeg-no-height", jpeg_of(40, 0), REFUSED)
    yield Upload("jpeg-no-width", jpeg_of(0, 30), REFUSED)
    progressive = whole["jpeg-progressive"]
    last = progressive.rindex(b"\xff\xda")
    scans = progressive[:-2] + progressive[last:-2] * 300 + progressive[-2:]
    yield Upload("jpeg-hundreds-of-scans", scans, REFUSED)
    yield Upload("jpeg-million-of-scans", progressive[:-2] + b"\xff\xda\0\x02" * MEGA + b"\xff\xd9", REFUSED)
    yield Upload("jpeg-millions-of-comments", after_header(jpeg, b"\xff\xfe\0\x02" * (4 * MEGA)), REFUSED)
    yield Upload("jpeg-fill-bytes", after_header(jpeg, b"\xff" * (10 * MEGA)), REFUSED)
    yield Upload("jpeg-zeros-before-marker", after_header(jpeg, bytes(10 * MEGA)), REFUSED)
    exif = segment(0xE1, b"Exif\0\0" + bytes(65_000))
    yield Upload("jpeg-exif-in-300-segments", after_header(jpeg, exif * 300), REFUSED)
    icc = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(65_000)) for n in range(1, 256))
    yield Upload("jpeg-icc-of-16-megabytes", after_header(jpeg, icc), DONE)
    yield Upload("jpeg-many-restarts", jpeg[:-2] + b"\xff\xd0" * (5 * MEGA) + jpeg[-2:], DONE)


def _png_bombs() -> Iterator[Upload]:
    zeros = zlib.compress(bytes(100 * MEGA), 9)
    few = zlib.compress(bytes(100))
    yield Upload("png-60000-square", png(60_000, 60_000, 8, 2, few), TOO_MANY)
    yield Upload("png-2-to-31", png(2**31 - 1, 2**31 - 1, 8, 2, few), TOO_MANY)
    yield Upload("png-sides-over-31-bits", png(2**32 - 1, 2**32 - 1, 8, 2, few), TOO_MANY | REFUSED)
    yield Upload("png-no-width", png(0, 10, 8, 2, few), REFUSED)
    yield Upload("png-70000-high", png(1, 70_000, 8, 0, zlib.compress(bytes(140_000))), TOO_LONG)
    yield Upload("png-49-megapixels-of-nothing", png(7_000, 7_000, 1, 0, few), UNREADABLE)
    yield Upload(
        "png-49-megapixels-deflated", png(7_000, 7_000, 1, 0, zlib.compress(bytes(876 * 7_000))), DONE
    )
    yield Upload("png-idat-inflates-to-100-mb", png(10, 10, 8, 2, zeros), DONE | UNREADABLE)
    yield Upload("png-idat-inflates-in-2500-chunks", _in_small_chunks(zeros), DONE | UNREADABLE)
    yield Upload("png-million-of-chunks", _with_chunks(chunk(b"prVt", b"") * MEGA), REFUSED)
    yield Upload("png-million-of-idats", _with_chunks(chunk(b"IDAT", b"") * MEGA), REFUSED)
    for kind, head in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\x01\0\0\0"), (b"iCCP", b"k\0\0")):
        bomb = chunk(kind, head + zeros)
        yield Upload(f"png-{kind.decode()}-bomb", _with_chunks(bomb), REFUSED)
        yield Upload(f"png-{kind.decode()}-bombs", _with_chunks(bomb * 100), REFUSED)
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(MEGA), 9))
    yield Upload("png-5000-profiles-of-a-megabyte", _with_chunks(profile * 5_000), REFUSED)
    below = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MEGA), 9))
    yield Upload("png-70-texts-of-a-megabyte", _with_chunks(below * 70), REFUSED)
    yield Upload("png-text-of-10-mb", _with_chunks(chunk(b"tEXt", b"k\0" + b"x" * 10 * MEGA)), DONE)


def _other_bombs() -> Iterator[Upload]:
    whole = whole_pictures()
    bmp, webp = whole["bmp"], whole["webp-lossless"]
    yield Upload("bmp-2-to-31", patched(bmp, 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)), REFUSED)
    yield Upload("bmp-least-height", patched(bmp, 18, struct.pack("<ii", 40, -(2**31))), REFUSED)
    yield Upload("bmp-negative-width", patched(bmp, 18, struct.pack("<i", -40)), TOO_MANY)
    rle = patched(patched(bmp, 28, struct.pack("<HI", 8, 1)), 18, struct.pack("<ii", 7_000, 7_000))
    yield Upload("bmp-rle-of-49-megapixels", rle, UNREADABLE | DONE | REFUSED)
    rle = patched(rle, 18, struct.pack("<ii", 60_000, 60_000))
    yield Upload("bmp-rle-60000-square", rle, TOO_MANY | REFUSED)
    yield Upload("webp-16383-square", patched(webp, 21, struct.pack("<I", 0x0FFF_FFFF)), TOO_MANY | REFUSED)
    yield Upload("tiff-60000-square", tiff_of(60_000, 60_000, (1, b"\x08", b"\x08")), TOO_MANY)
    yield Upload("tiff-2-to-32", tiff_of(2**32 - 1, 2**32 - 1, (1, b"\x08", b"\x08")), TOO_MANY | REFUSED)
    yield Upload("tiff-million-strips", _strips(MEGA), REFUSED)
    yield Upload("tiff-60000-strips-on-each-other", _strips(60_000), REFUSED)
    yield Upload("tiff-8000-strips-on-each-other", _strips(8_000), DONE)
    yield Upload("tiff-65535-entries", tiff([(65_000, 4, 1, b"")] * 65_535), REFUSED)
    yield Upload("tiff-strips-far-away", tiff_of(10, 10, (1, b"\xff\xff\xff\xff", b"\x64")), REFUSED)
    yield Upload("tiff-count-over-the-end", tiff_of(10, 10, (2**32 - 1, b"\x08", b"\x08")), REFUSED)
    yield Upload("tiff-directory-in-itself", patched(whole["tiff"], 4, b"\x04\0\0\0"), REFUSED)
    yield Upload("bigtiff-endless", b"II\x2b\0\x08\0\0\0" + b"\x10".ljust(8, b"\0") + b"\xff" * 200, REFUSED)
    deflated = saved(Image.new("L", (7_000, 7_000)), "TIFF", compression="tiff_adobe_deflate")
    yield Upload("tiff-49-megapixels-deflated", deflated, DONE)
    avif, heic = whole["avif"], whole["heic"]
    for name, file in (("avif", avif), ("heic", heic)):
        sides = file.index(b"ispe") + 8
        huge = patched(file, sides, struct.pack(">II", 2**31, 2**31))
        yield Upload(f"{name}-header-2-to-31", huge, TOO_MANY | REFUSED)
        large = patched(file, sides, struct.pack(">II", 20_000, 20_000))
        yield Upload(f"{name}-header-20000-square", large, TOO_MANY | REFUSED)
    yield Upload("avif-million-boxes", avif[:32] + (b"\0\0\0\x08free" * MEGA) + avif[32:], REFUSED)
    yield Upload("avif-box-of-no-size", patched(avif, 32, struct.pack(">I", 1)) + bytes(100), REFUSED)


def _in_small_chunks(deflated: bytes) -> bytes:
    step = len(deflated) // 2_500 + 1
    parts = [chunk(b"IDAT", deflated[at : at + step]) for at in range(0, len(deflated), step)]
    return png(10, 10, 8, 2, b"").replace(chunk(b"IDAT", b""), b"".join(parts))


def _with_chunks(chunks: bytes) -> bytes:
    whole = saved(picture(), "PNG")
    return whole[:33] + chunks + whole[33:]


def _strips(count: int) -> bytes:
    """Return a TIFF of `count` rows that all lie in the same place."""
    at = 8 + 2 + 9 * 12 + 4
    offsets = struct.pack("<I", at) * count
    lengths = struct.pack("<I", 1) * count
    places = (count, struct.pack("<I", at), struct.pack("<I", at + len(offsets)))
    return tiff_of(1, count, places, offsets + lengths)


def impostors() -> Iterator[Upload]:
    """Yield files of other kinds, files that are two kinds at once, and no files."""
    whole = whole_pictures()
    jpeg, png_file = whole["jpeg"], whole["png"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("evil.js", "alert(1)")
    script = b"=1;alert(1);/*" + bytes(100) + b"*/"
    frames = [picture(), picture().rotate(180)]
    gif = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    html = b"<html><script>alert(1)</script></html>"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    yield Upload("nothing", b"", frozenset({"empty_upload"}))
    for name, content in {
        "one-byte": b"\xff",
        "zeros": bytes(5_000),
        "text": b"this is a picture, really",
        "utf-16": "picture".encode("utf-16"),
        "html": html,
        "svg": svg,
        "pdf": b"%PDF-1.7\n" + bytes(500),
        "zip": archive.getvalue(),
        "elf": b"\x7fELF" + bytes(500),
        "gif": gif,
        "gif-javascript": b"GIF89a" + script,
        "pdf-before-jpeg": b"%PDF-1.7\n" + jpeg,
        "html-before-png": html + png_file,
        "eps": saved(picture(), "EPS"),
        "ico": saved(picture(), "ICO"),
        "jpeg2000-signature": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "psd-signature": b"8BPS\0\x01" + bytes(100),
        "jpeg-signature": b"\xff\xd8\xff",
        "png-signature": b"\x89PNG\r\n\x1a\n",
        "webp-signature": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "tiff-signature": b"MM\0\x2a",
        "bmp-signature": b"BM" + bytes(52),
        "avif-signature": b"\0\0\0\x1cftypavif" + bytes(16),
        "video-in-boxes": b"\0\0\0\x14ftypisom" + bytes(8) + b"\0\0\0\x08meta\0\0\0\x08mdat",
        "thumbnail-is-all": jpeg[:2] + segment(0xE1, b"Exif\0\0" + jpeg) + b"\xff\xd9",
    }.items():
        yield Upload(name, content, REFUSED)
    yield Upload("zip-after-png", png_file + archive.getvalue(), DONE)
    yield Upload("zip-after-jpeg", jpeg + archive.getvalue(), DONE)
    yield Upload("pdf-in-jpeg-comment", after_header(jpeg, segment(0xFE, b"%PDF-1.7 " + bytes(100))), DONE)
    yield Upload("javascript-in-jpeg", after_header(jpeg, segment(0xFE, script)), DONE)
    yield Upload("html-in-png-text", _with_chunks(chunk(b"tEXt", b"Comment\0" + html)), DONE)
    yield Upload("php-in-jpeg-exif", after_header(jpeg, segment(0xE1, b"Exif\0\0<?php exec('id') ?>")), DONE)
    yield Upload("svg-after-webp", whole["webp-lossy"] + svg, DONE)
    yield Upload("jpeg-after-jpeg", jpeg + jpeg, DONE)
    yield Upload("bmp-javascript", b"BM" + script + whole["bmp"], REFUSED)
    yield Upload("png-in-bmp-header", patched(whole["bmp"], 30, b"\x05"), REFUSED | UNREADABLE)


def odd_pictures() -> Iterator[Upload]:
    """Yield pictures that few programs write and that are pictures all the same."""
    tall, wide = Image.new("RGB", (1, 60_000)), Image.new("RGB", (60_000, 1))
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP"):
        yield Upload(f"{kind}-1x1", saved(picture(1, 1), kind), DONE)
    for kind in ("JPEG", "PNG", "TIFF", "BMP"):
        yield Upload(f"{kind}-1x60000", saved(tall, kind), DONE)
        yield Upload(f"{kind}-60000x1", saved(wide, kind), DONE)
    frames = {"save_all": True, "append_images": [picture().rotate(180)] * 3, "duration": 100}
    for kind in ("PNG", "WEBP", "AVIF"):
        yield Upload(f"{kind}-animated", saved(picture(), kind, **frames), DONE)
    yield Upload(
        "tiff-of-pages", saved(picture(), "TIFF", save_all=True, append_images=[picture()] * 3), DONE
    )
    yield Upload("mpo", saved(picture(), "MPO", save_all=True, append_images=[picture()]), DONE)
    for mode, kind in (
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"),
        ("RGBA", "WEBP"), ("RGBA", "AVIF"), ("RGBA", "TIFF"), ("I;16", "PNG"), ("I;16", "TIFF"),
        ("F", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "JPEG"), ("YCbCr", "TIFF"), ("1", "BMP"),
        ("P", "BMP"), ("P", "PNG"),
    ):  # fmt: skip
        image = picture().convert("L").convert(mode) if mode in {"I;16", "F"} else _in_mode(mode)
        yield Upload(f"{kind}-{mode}", saved(image, kind), DONE)
    palette = picture().quantize(16)
    yield Upload("png-palette-alpha", saved(palette, "PNG", transparency=bytes(range(0, 256, 16))), DONE)
    yield Upload("png-palette-index-outside", saved(palette, "PNG", transparency=3, bits=4), DONE)
    yield Upload("png-16-bit-rgb", png(2, 2, 16, 2, zlib.compress(bytes(26))), DONE)
    yield Upload("png-16-bit-rgba-interlaced", png(1, 1, 16, 6, zlib.compress(bytes(9)), interlaced=1), DONE)
    yield Upload("png-palette-missing", png(2, 2, 8, 3, zlib.compress(bytes(6))), REFUSED | UNREADABLE | DONE)
    yield Upload("png-depth-3", png(2, 2, 3, 0, zlib.compress(bytes(6))), REFUSED)
    yield Upload("png-colour-5", png(2, 2, 8, 5, zlib.compress(bytes(6))), REFUSED)
    yield Upload("png-bad-filter", png(2, 2, 8, 0, zlib.compress(b"\x09\0\0" * 2)), UNREADABLE | DONE)
    yield Upload("png-not-deflated", png(2, 2, 8, 0, b"garbage"), UNREADABLE)
    yield Upload("png-pixels-missing", png(200, 200, 8, 0, zlib.compress(bytes(201))), UNREADABLE | DONE)
    whole = whole_pictures()
    wrong_sum = whole["png"].replace(chunk(b"IEND", b""), chunk(b"IEND", b"", crc=0))
    yield Upload("png-wrong-sum", wrong_sum, REFUSED)
    yield Upload("png-wrong-sum-of-text", _with_chunks(chunk(b"tEXt", b"k\0v", crc=0)), REFUSED)
    yield Upload("png-length-over-31-bits", _with_chunks(chunk(b"tEXt", b"", length=2**32 - 1)), REFUSED)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Upload(f"jpeg-orientation-{orientation}", saved(picture(), "JPEG", exif=exif), DONE)
    yield from _broken_metadata(whole["jpeg"])
    scan = whole["jpeg"].index(b"\xff\xda") + 30
    yield Upload("jpeg-garbage-in-scan", patched(whole["jpeg"], scan, b"\x55" * 200), DONE)
    yield Upload("jpeg-no-tables", whole["jpeg"].replace(b"\xff\xc4", b"\xff\xea"), UNREADABLE | DONE)
    yield Upload("jpeg-no-frame", whole["jpeg"].replace(b"\xff\xc0", b"\xff\xea"), REFUSED)
    yield Upload("jpeg-lossless-frame", whole["jpeg"].replace(b"\xff\xc0", b"\xff\xc3"), UNREADABLE | REFUSED)
    yield Upload("avif-garbage-in-pixels", whole["avif"][:-200] + b"\x55" * 200, UNREADABLE | DONE)
    yield Upload("heic-garbage-in-pixels", whole["heic"][:-200] + b"\x55" * 200, UNREADABLE | DONE)
    yield Upload("webp-garbage-in-pixels", whole["webp-lossy"][:60] + b"\x55" * 700, REFUSED | UNREADABLE)


def _in_mode(mode: str) -> Image.Image:
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        converted = ImageCms.applyTransform(picture(), to_lab)
        assert converted
        return converted
    return picture().convert(mode)


def _broken_metadata(jpeg: bytes) -> Iterator[Upload]:
    for name, exif in {
        "empty": b"",
        "garbage": b"\xff" * 500,
        "far-directory": b"II\x2a\0\xff\xff\xff\x7f",
        "endless-directory": b"MM\0\x2a\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0" * 50,
        "itself": b"II\x2a\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
    }.items():
        broken = after_header(jpeg.replace(b"\xff\xe1", b"\xff\xeb"), segment(0xE1, b"Exif\0\0" + exif))
        yield Upload(f"jpeg-exif-{name}", broken, DONE)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, icc in {
        "garbage": b"garbage",
        "cut": profile[:200],
        "endless-tags": patched(profile, 128, b"\xff\xff\xff\xff"),
        "of-lab": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    }.items():
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            yield Upload(f"{kind}-icc-{name}", saved(picture(), kind, icc_profile=icc), DONE)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>" + "<a>" * 100_000)
    yield Upload("png-xmp-nested", saved(picture(), "PNG", pnginfo=text), DONE)


def hostile_uploads() -> list[Upload]:
    """Return every file that is sent; faces are not looked for in bombs, where that takes minutes."""
    broken_off = [Upload(name, content, REFUSED) for name, content in cuts()]
    aligned = [replace(bomb, faces="aligned") for bomb in bombs()]
    return [*broken_off, *aligned, *impostors(), *odd_pictures()]
