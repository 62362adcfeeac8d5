"""Photos in and out: bytes of an upload become oriented 8-bit sRGB pixels, and pixels become bytes again.

Before it comes the upload as it was sent; after reading, faces are looked for in the pixels, and after the
last face is pasted back the pixels are written here. Nothing but pixels and alpha crosses: no metadata of the
upload.
"""

import enum
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from model.errors import (
    PictureError,
    PictureTooLargeError,
    PictureUnreadableError,
    PictureUnsupportedError,
)

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 65_500  # the longest side JPEG holds (libjpeg's JPEG_MAX_DIMENSION)
MAX_SIDE_WEBP = 16_383  # 14 bits, RFC 9649 section 2.7
# A few bytes of a progressive JPEG can ask for another pass over every pixel; encoders write about ten scans.
MAX_SCANS = 100

DIGITAL_SOURCE_TYPE = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"  # IPTC NewsCodes
)
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


class PhotoFormat(enum.StrEnum):
    """The kinds of picture that are read; the first four are also written."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    HEIC = "heic"
    TIFF = "tiff"
    BMP = "bmp"


# MPO is what Pillow calls a JPEG with further pictures behind the first, as phones write them.
_PILLOW_FORMATS = {
    "JPEG": PhotoFormat.JPEG,
    "MPO": PhotoFormat.JPEG,
    "PNG": PhotoFormat.PNG,
    "WEBP": PhotoFormat.WEBP,
    "AVIF": PhotoFormat.AVIF,
    "TIFF": PhotoFormat.TIFF,
    "BMP": PhotoFormat.BMP,
}

# EXIF 2.32, tag 0x0112: how the stored picture is turned to stand upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """A photo as it is worked on: `pixels` uint8 (height, width, 3), sRGB and upright.

    `alpha` is uint8 (height, width), None where the upload had none; `format` is the kind of the upload.
    """

    pixels: Pixels
    alpha: Pixels | None
    format: PhotoFormat


def read_photo(source: bytes, *, max_pixels: int = 50_000_000) -> Photo:
    """Return the picture in `source`, upright, as 8-bit sRGB; of an animation its first frame.

    The size is checked from the header, before any pixel is decoded. An ICC profile that is broken counts as
    sRGB. Raises PictureUnsupportedError, PictureTooLargeError or PictureUnreadableError.
    """
    with _decoding():
        heif = pi_heif.get_file_mimetype(source).startswith("image/hei")
        opened = _open_heif(source, max_pixels) if heif else _open_pillow(source, max_pixels)
        photo_format = PhotoFormat.HEIC if heif else _PILLOW_FORMATS[str(opened.format)]
        if opened.info.get("progressive") and source.count(b"\xff\xda") > MAX_SCANS:
            raise PictureUnreadableError(
                f"the JPEG has {source.count(bytes([0xFF, 0xDA]))} scans, the limit is {MAX_SCANS}"
            )
        opened.load()
        # HEIF turns by its own `irot`, which libheif has applied; its EXIF orientation says nothing
        # (MIAF 7.3.6).
        upright = opened if heif else _turned(opened)
        colours, alpha = _split_alpha(upright)
        srgb = _to_srgb(colours, upright.info.get("icc_profile"))
        return Photo(np.asarray(srgb), alpha, photo_format)


def write_photo(pixels: Pixels, alpha: Pixels | None, photo_format: PhotoFormat, *, synthetic: bool) -> bytes:
    """Return `pixels` (and `alpha`) as a file: PNG, JPEG (quality 95, 4:4:4), WebP (95) or AVIF (90, 4:4:4).

    The file holds an sRGB profile and, where `synthetic`, IPTC's DigitalSourceType in XMP, and nothing else.
    JPEG has no alpha, so there the picture is laid on white. The same pixels give the same bytes. Raises
    PictureUnsupportedError for a kind that is not written, PictureTooLargeError where it cannot hold the
    size.
    """
    height, width = pixels.shape[:2]
    limit = MAX_SIDE_WEBP if photo_format is PhotoFormat.WEBP else MAX_SIDE
    if max(width, height) > limit:
        raise PictureTooLargeError(
            f"the picture is {width} x {height} pixels, the limit for a side in {photo_format} is {limit}"
        )
    picture = Image.fromarray(pixels)
    if alpha is not None:
        if photo_format is PhotoFormat.JPEG:
            picture = Image.composite(
                picture, Image.new("RGB", picture.size, "white"), Image.fromarray(alpha)
            )
        else:
            picture.putalpha(Image.fromarray(alpha))
    xmp = _XMP.encode() if synthetic else b""
    profile = _srgb_profile()
    file = io.BytesIO()
    match photo_format:
        case PhotoFormat.PNG:
            chunks = PngImagePlugin.PngInfo()
            if synthetic:
                chunks.add_itxt("XML:com.adobe.xmp", _XMP)
            # Level 6 takes twice as long for files 9 % smaller.
            picture.save(file, "PNG", compress_level=3, icc_profile=profile, pnginfo=chunks)
        case PhotoFormat.JPEG:
            picture.save(file, "JPEG", quality=95, subsampling=0, icc_profile=profile, xmp=xmp)
        case PhotoFormat.WEBP:
            # exact: colours under alpha 0 are kept, as in PNG.
            picture.save(file, "WEBP", quality=95, method=4, exact=True, icc_profile=profile, xmp=xmp)
        case PhotoFormat.AVIF:
            # A fixed number of threads: libavif lays its tiles by it, and the bytes would
            # differ between machines.
            picture.save(
                file,
                "AVIF",
                quality=90,
                subsampling="4:4:4",
                speed=8,
                max_threads=2,
                icc_profile=profile,
                xmp=xmp,
            )
        case _:
            raise PictureUnsupportedError(
                f"the format is {photo_format}, written are png, jpeg, webp and avif"
            )
    return file.getvalue()


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn whatever a decoder raises into a PictureError, and keep its warnings to ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except PictureError:
            raise
        except Exception as error:
            # Corrupt bytes raise nearly anything: OSError, SyntaxError, ValueError,
            # struct.error, IndexError, MemoryError.
            raise PictureUnreadableError(
                "the picture cannot be decoded: its bytes are truncated or corrupt"
            ) from error


def _open_heif(source: bytes, max_pixels: int) -> Image.Image:
    file = pi_heif.open_heif(source)
    _check_size(file.size, max_pixels)
    picture: Image.Image = file.to_pillow()
    return picture


def _open_pillow(source: bytes, max_pixels: int) -> Image.Image:
    readable = [name for name in _PILLOW_FORMATS if name != "MPO"]  # which its JPEG reader opens
    try:
        opened = Image.open(io.BytesIO(source), formats=readable)
    except Image.DecompressionBombError as error:
        ceiling = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise PictureTooLargeError(
            f"the picture has more than {ceiling / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.6g}"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureUnsupportedError(
            f"the {len(source):,} bytes are not a picture we read: JPEG, PNG, WebP, AVIF, HEIC, TIFF or BMP"
        ) from error
    _check_size(opened.size, max_pixels)
    return opened


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if min(width, height) < 1:
        raise PictureUnreadableError(f"the picture is {width} x {height} pixels, the least is 1 x 1")
    if max(width, height) > MAX_SIDE:
        raise PictureTooLargeError(
            f"the picture is {width} x {height} pixels, the limit for a side is {MAX_SIDE}"
        )
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"the picture has {width * height / 1e6:.6g} megapixels, the limit is {max_pixels / 1e6:.6g}"
        )


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken EXIF raises nearly anything, and the pixels beside it are whole
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # holds what a palette and a profile mean
    return turned


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Pixels | None]:
    """Return the picture as L, RGB, CMYK or LAB with 8 bits a channel, and its alpha."""
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image)
        key = image.info.get("transparency")
        alpha = np.where(levels == key, np.uint8(0), np.uint8(255)) if isinstance(key, int) else None
        return Image.fromarray(_to_8_bits(levels)), alpha
    if image.mode in {"L", "CMYK", "LAB"} and not image.has_transparency_data:
        return image, None
    if image.mode == "1" and not image.has_transparency_data:
        return image.convert("L"), None
    if image.has_transparency_data or image.mode in {"La", "PA", "RGBa"}:
        grey = image.mode in {"LA", "La"}
        with_alpha = image.convert("LA" if grey else "RGBA")
        return with_alpha.convert("L" if grey else "RGB"), np.asarray(with_alpha.getchannel("A"))
    return image.convert("RGB"), None


def _to_8_bits(levels: npt.NDArray[np.generic]) -> Pixels:
    """Scale 16-bit, 32-bit and float greys; white is the smallest usual value that holds them."""
    values = np.nan_to_num(levels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if levels.dtype.itemsize == np.dtype(np.uint16).itemsize:
        white = 65_535.0
    else:
        white = next(
            (usual for usual in (1.0, 255.0, 65_535.0) if values.max() <= usual), float(values.max())
        )
    return np.asarray(np.clip(np.rint(values * (255.0 / white)), 0, 255), dtype=np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        except (OSError, ImageCms.PyCMSError):
            return image.convert("RGB")
    else:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return image.convert("RGB")  # the profile is of another colour space than the picture
    return converted if converted is not None else image.convert("RGB")


def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes([7, 234, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])  # ICC.1 7.2.8: written "now" otherwise
    return bytes(profile)
