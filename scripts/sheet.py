"""Makes a sheet of one photo for people to look at: as it was, with the faces found, anonymized.

Run as `python scripts/sheet.py PHOTO OUT.jpg [WIDTH]`; a panel is WIDTH pixels wide, 640 by default.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from model.checkpoint import load_checkpoint
from model.device import prepare_device
from model.engine import Engine
from model.faces.alignment import Pixels
from model.faces.detection import FaceFinder
from model.faces.drawing import draw
from model.faces.identity import DlibFaceEmbedder
from model.photo import read_photo
from model.pipeline import Pipeline, Sampling

SHIPPED_CHECKPOINT = Path(__file__).parent.parent / "model" / "checkpoints" / "small"
GAP = 8


def main() -> None:
    """Make the sheet."""
    photo, out = Path(sys.argv[1]), Path(sys.argv[2])
    width = int(sys.argv[3]) if len(sys.argv) > 3 else 640  # noqa: PLR2004  the third argument
    pixels = read_photo(photo.read_bytes()).pixels
    checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
    prepare_device(checkpoint)
    finder = FaceFinder()
    with Engine(checkpoint, slots=4) as engine:
        made = Pipeline(engine, finder, DlibFaceEmbedder()).anonymize(pixels, Sampling(seed=1))
    for index, face in enumerate(made.photo.faces):
        print(index, face.status, face.identity_distance, *face.warnings)
    panels = [
        _panel(picture, width) for picture in (pixels, draw(pixels, finder.find(pixels)), made.photo.pixels)
    ]
    height = panels[0].height
    wide = width > 2 * height  # wide photos stand above each other
    step = (0, height + GAP) if wide else (width + GAP, 0)
    sheet = Image.new("RGB", (width + 2 * step[0], height + 2 * step[1]), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index * step[0], index * step[1]))
    sheet.save(out, quality=88)


def _panel(pixels: Pixels, width: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
