"""`face-anon detect`: the faces in a photo as JSON, and drawn into it; the diffusion model is not loaded."""

import json
from dataclasses import asdict
from pathlib import Path

from cli.files import check_writable, fail, read_file, written_format
from model.errors import ModelError
from model.faces.detection import FaceFinder
from model.faces.drawing import draw
from model.faces.face import Face
from model.photo import write_photo


def run_detect(file: Path, drawing: Path | None, *, face_threshold: float) -> int:
    """Print the faces of one photo; returns the exit code, 1 with a sentence on stderr for an error."""
    try:
        if drawing is not None:
            check_writable(drawing)
        photo = read_file(file)
        faces = FaceFinder(face_threshold).find(photo.pixels)
        if drawing is not None:
            drawn = draw(photo.pixels, faces)
            drawing.write_bytes(write_photo(drawn, None, written_format(drawing), synthetic=False))
    except (ModelError, OSError) as error:
        return fail(error)
    height, width = photo.pixels.shape[:2]
    found = {"width": width, "height": height, "faces": [_described(face) for face in faces]}
    print(json.dumps(found))  # noqa: T201
    return 0


def _described(face: Face) -> dict[str, object]:
    box = face.box
    return {
        "box": [round(side, 1) for side in (box.x, box.y, box.width, box.height)],
        "score": round(face.score, 3),
        "landmarks": face.landmarks
        and {
            name: [round(coordinate, 1) for coordinate in point]
            for name, point in asdict(face.landmarks).items()
        },
    }
