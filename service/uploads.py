"""Checks an uploaded picture before a job is made of it: its bytes, its kind, its pixels, and that all of it
is there. `service.submission` calls it; no pixel is decoded before the worker does, with time and memory of
its own.
"""

import io
from http import HTTPStatus

from PIL import Image, UnidentifiedImageError

from jobs.contract import PictureFormat
from service.problems import ProblemError
from service.structure import StructureError, check_structure, kind_of

READ_FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP"
READ_MEDIA_TYPES = "image/jpeg, image/png, image/webp, image/avif, image/heic, image/tiff, image/bmp"
WRITTEN_FORMATS = {
    "JPEG": PictureFormat.JPEG,
    "MPO": PictureFormat.JPEG,
    "PNG": PictureFormat.PNG,
    "WEBP": PictureFormat.WEBP,
    "AVIF": PictureFormat.AVIF,
}
MAX_SIDE = 65_500  # the longest side JPEG holds (libjpeg's JPEG_MAX_DIMENSION)
MAX_SIDES = {
    PictureFormat.WEBP: 16_383,  # 14 bits, RFC 9649 section 2.7
    PictureFormat.AVIF: 32_768,  # libavif writes longer ones and does not read them
}


def check_upload(
    field: str, upload: bytes, asked: PictureFormat | None, *, max_bytes: int, max_pixels: int
) -> PictureFormat:
    """Return the format to write the result in: as asked, or as sent where we write it, else PNG.

    Raises `ProblemError`: 400 for an empty upload, 413 for too many bytes or pixels or too long a side, 415
    for what is not a picture we read, or breaks off.
    """
    if not upload:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "empty_upload", f"{field} is empty")
    if len(upload) > max_bytes:
        raise _too_large("upload_too_large", f"{field} has {len(upload)} bytes, the limit is {max_bytes}")
    width, height, as_sent = _read_header(field, upload)
    written = asked or as_sent or PictureFormat.PNG
    if width * height > max_pixels:
        pixels = f"{width} x {height} = {width * height} pixels"
        raise _too_large("too_many_pixels", f"{field} has {pixels}, the limit is {max_pixels}")
    max_side = MAX_SIDES.get(written, MAX_SIDE)
    if max(width, height) > max_side:
        sides = f"{width} x {height} pixels"
        raise _too_large(
            "side_too_long", f"{field} has {sides}, the limit for a side in {written} is {max_side}"
        )
    return written


def _read_header(field: str, upload: bytes) -> tuple[int, int, PictureFormat | None]:
    """Return width, height and the format to write where the upload has one of those."""
    kind = kind_of(upload)
    if kind is None:
        raise _not_a_picture(field)
    try:
        check_structure(upload, kind)
        with Image.open(io.BytesIO(upload), formats=kind.formats) as image:
            return image.width, image.height, WRITTEN_FORMATS.get(image.format or "")
    except StructureError as error:
        raise _broken(field, str(error)) from error
    except UnidentifiedImageError as error:
        raise _not_a_picture(field) from error
    except Exception as error:  # corrupt headers raise nearly anything
        raise _broken(field, "its header cannot be read") from error


def _too_large(code: str, detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code, detail)


def _not_a_picture(field: str) -> ProblemError:
    detail = f"{field} is not a picture we read ({READ_FORMATS})"
    return ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_a_picture", detail)


def _broken(field: str, why: str) -> ProblemError:
    detail = f"{field} is broken: {why}"
    return ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "broken_picture", detail)
