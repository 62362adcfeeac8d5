"""Measures finding, aligning and pasting: what ten faces in 12 megapixels cost, how well a photo returns.

`python -m bench.photo` works on the sample photo; the network takes no part.
"""

import math
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.detection_set import Photo, canvas, score
from model.faces.alignment import Pixels, Quad, align, crop_face
from model.faces.detection import FaceFinder
from model.faces.face import Landmarks
from model.faces.pasting import Replacement, mask, paste_faces

SAMPLE = Path(__file__).parent.parent / "samples" / "astronaut.png"
LANDMARKS = Landmarks((203.3, 101.3), (246.7, 103.7), (222.4, 124.5), (199.2, 139.3), (246.8, 141.8))
FACE_WIDTH = 86.0
LEFT, SIDE = 104, 240  # the part of the sample around the face
SIZE = 512
WIDTHS = (30, 60, 120, 250, 500, 1_000, 2_000)


def enlarged(width: float) -> tuple[Pixels, Quad]:
    """Return the part of the sample in which the face is `width` pixels wide, and its crop."""
    side = round(SIDE * width / FACE_WIDTH)
    part = Image.open(SAMPLE).convert("RGB").crop((LEFT, 0, LEFT + SIDE, SIDE))
    quad, scale = align(LANDMARKS), side / SIDE
    centre = ((quad.centre[0] - LEFT) * scale, quad.centre[1] * scale)
    half = (quad.half[0] * scale, quad.half[1] * scale)
    return np.asarray(part.resize((side, side), Image.Resampling.LANCZOS)), Quad(centre, half)


def returned(pixels: Pixels, quad: Quad) -> float:
    """Return the PSNR in dB of the masked area after a crop is pasted back as it is."""
    crop = crop_face(pixels, quad, SIZE)
    pasted = paste_faces(pixels, [Replacement(quad, crop, crop)]).pixels
    left, top, width, height = quad.bounds(pixels.shape[1], pixels.shape[0])
    area = np.s_[top : top + height, left : left + width]
    inside = mask(quad, left, top, width, height) > 0
    error = np.square(pasted[area][inside].astype(np.float32) - pixels[area][inside]).mean()
    return 10 * math.log10(255**2 / max(float(error), 1e-9))


def peak() -> float:
    """Return the most memory that this program has had since it was asked to forget, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def group_photo(kind: str) -> Photo:
    """Return 12 megapixels with ten heads whose faces are 60 to 330 pixels wide, before a background."""
    photo = canvas(kind, 4_000, 3_000)
    for index, width in enumerate((60, 90, 120, 150, 180, 210, 240, 270, 300, 330)):
        photo.paste(width, (400 + index % 5 * 800, 750 + index // 5 * 1_500), angle=index * 12 - 54)
    return photo


def print_times(kind: str) -> None:
    """Print what a group photo costs besides the network: the crops are pasted as they are."""
    group = group_photo(kind)
    photo = group.pixels
    finder = FaceFinder()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forgets the highest memory use so far
    before = peak()
    started = time.perf_counter()
    faces = finder.find(photo)
    found = time.perf_counter()
    quads = [align(face.landmarks) for face in faces if face.landmarks]
    crops = [crop_face(photo, quad, SIZE) for quad in quads]
    aligned = time.perf_counter()
    paste_faces(photo, [Replacement(quad, crop, crop) for quad, crop in zip(quads, crops, strict=True)])
    pasted = time.perf_counter()
    counted = score(group.truths, faces)
    print(
        f"12 megapixels, {kind} behind: {counted.found} of {counted.expected} faces found "
        f"(60 to 330 px wide) and {counted.false} others, crops of {SIZE} px"
    )
    print(
        f"finding {found - started:.2f} s, aligning {aligned - found:.2f} s, "
        f"pasting {pasted - aligned:.2f} s, "
        f"together {pasted - started:.2f} s"
    )
    print(f"peak memory {peak():.0f} MB, of it before finding {before:.0f} MB\n")


def main() -> None:
    """Print both tables."""
    for kind in ("gradient", "texture"):
        print_times(kind)
    print(f"{'face px':>8} {'crop side px':>13} {'PSNR dB':>8}")
    for width in WIDTHS:
        pixels, quad = enlarged(width)
        print(f"{width:8} {quad.side:13.0f} {returned(pixels, quad):8.1f}")


if __name__ == "__main__":
    main()
