"""What schemathesis cannot guess: pictures for the fields that are pictures, and ids of jobs that exist.
`scripts/fuzz.py` has schemathesis load it.
"""

import io
import itertools
import os
from typing import Any

import schemathesis
from hypothesis import strategies
from PIL import Image

JOBS = itertools.cycle(os.environ["FUZZ_JOBS"].split(","))
NUMBERS = itertools.count()
LONGEST_KEY = 255
KINDS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "AVIF": "avif", "TIFF": "tiff", "BMP": "bmp"}


def _pictures(kind: str) -> list[bytes]:
    files = []
    for side in (1, 7, 40):
        file = io.BytesIO()
        Image.linear_gradient("L").resize((side, side)).convert("RGB").save(file, kind)
        files.append(file.getvalue())
    return files


for _kind, _name in KINDS.items():
    schemathesis.openapi.media_type(f"image/{_name}", strategies.sampled_from(_pictures(_kind)))


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:  # noqa: ANN401
    """Use each Idempotency-Key once: with another request it is a 422, as it should be."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) <= LONGEST_KEY:
        unique = f"-{next(NUMBERS)}"
        case.headers["Idempotency-Key"] = key[: LONGEST_KEY - len(unique)] + unique


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:  # noqa: ANN401
    """Ask every other time for a job that was made for it, where schemathesis would ask for none that is."""
    if path_parameters and "job_id" in path_parameters and len(str(path_parameters["job_id"])) % 2:
        return {**path_parameters, "job_id": next(JOBS)}
    return path_parameters
