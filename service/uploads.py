"""Checks an uploaded picture before a job is made of it: its bytes, its kind, its pixels, and that it can be
decoded. `service.app` calls it; the worker decodes the picture in full.
"""

import io
from http import HTTPStatus

from PIL import Image, UnidentifiedImageError

from jobs.contract import PictureFormat
from service.problems import ProblemError

READ_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP")
WRITTEN_FORMATS = {
    "JPEG": PictureFormat.JPEG,
    "MPO": PictureFormat.JPEG,
    "PNG": PictureFormat.PNG,
    "WEBP": PictureFormat.WEBP,
    "AVIF": PictureFormat.AVIF,
}


def check_upload(field: str, upload: bytes, *, max_bytes: int, max_pixels: int) -> PictureFormat:
    """Return the format to write the result in: as sent where we write it, else PNG.

    Raises `ProblemError`: 400 for an empty upload, 413 for too many bytes or pixels, 415 for what is not a
    picture we read, or breaks off.
    """
    if not upload:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "empty_upload", f"{field} is empty")
    if len(upload) > max_bytes:
        detail = f"{field} has {len(upload)} bytes, the limit is {max_bytes}"
        raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "upload_too_large", detail)
    try:
        image = Image.open(io.BytesIO(upload), formats=READ_FORMATS)
    except UnidentifiedImageError as error:
        detail = f"{field} is not a picture we read ({', '.join(READ_FORMATS)})"
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_a_picture", detail) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise _broken(field) from error
    with image:
        pixels = image.width * image.height
        if pixels > max_pixels:
            detail = (
                f"{field} has {image.width} x {image.height} = {pixels} pixels, the limit is {max_pixels}"
            )
            raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pixels", detail)
        picture_format = WRITTEN_FORMATS.get(image.format or "", PictureFormat.PNG)
        try:
            image.draft(None, (1, 1))  # a JPEG is decoded at an eighth of its size, which shows breaks too
            image.load()
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise _broken(field) from error
    return picture_format


def _broken(field: str) -> ProblemError:
    detail = f"{field} is broken: the picture cannot be decoded"
    return ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "broken_picture", detail)
