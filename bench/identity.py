"""Measures what the identity network tells apart: distances between people, and of each to itself, changed.

`python -m bench.identity [FOLDER]` prints both distributions and the error rates per threshold, from
which docs/identity.md chooses; portrait_landmarks.json was made once with MediaPipe's mesh.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.faces.alignment import Pixels
from model.faces.face import Landmarks
from model.faces.identity import DlibFaceEmbedder

ROOT = Path(__file__).parent.parent
PORTRAITS = ROOT.parent / "shared" / "photos" / "portraits"
LANDMARKS = Path(__file__).parent / "portrait_landmarks.json"
THRESHOLDS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)
TURN = 15.0

Points = npt.NDArray[np.float64]


def scaled(factor: float) -> Callable[[Pixels, Points], tuple[Pixels, Points]]:
    """Return a change to `factor` of the size."""

    def change(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8), points * factor

    return change


def compressed(quality: int) -> Callable[[Pixels, Points], tuple[Pixels, Points]]:
    """Return a change to JPEG of some quality."""

    def change(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)), points

    return change


def blurred(sigma: float) -> Callable[[Pixels, Points], tuple[Pixels, Points]]:
    """Return a change by Gaussian blur, `sigma` in pixels."""

    def change(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), dtype=np.uint8), points

    return change


def turned(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
    """Return the picture turned by 15 degrees, its landmarks staying: an aligner that missed it."""
    middle = points.mean(axis=0)
    matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), TURN, 1.0)
    turned_pixels = cv2.warpAffine(pixels, matrix, pixels.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned_pixels, dtype=np.uint8), points


def turned_and_found(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
    """Return the picture turned by 15 degrees with its landmarks."""
    middle = points.mean(axis=0)
    matrix = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), TURN, 1.0)
    return turned(pixels, points)[0], points @ matrix[:, :2].T + matrix[:, 2]


def grey(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
    """Return the picture without its colours."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")), points


CHANGES = {
    "half size": scaled(0.5),
    "quarter size": scaled(0.25),
    "an eighth of the size": scaled(0.125),
    "JPEG 50": compressed(50),
    "JPEG 10": compressed(10),
    "turned 15 degrees": turned_and_found,
    "turned 15 degrees, not aligned": turned,
    "blur, sigma 1.5 px": blurred(1.5),
    "blur, sigma 3 px": blurred(3.0),
    "blur, sigma 6 px": blurred(6.0),
    "grey": grey,
}


def main(folder: Path) -> None:
    """Print the distributions and the error rates."""
    if not folder.is_dir():
        print(f"identity: skipped, no portraits in {folder}")
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # a face is too small a batch for more
    embedder = DlibFaceEmbedder()
    stored = json.loads(LANDMARKS.read_text())
    people = [
        (np.asarray(Image.open(folder / name).convert("RGB")), np.array(points, dtype=np.float64))
        for name, points in stored.items()
    ]

    def embed(pixels: Pixels, points: Points) -> npt.NDArray[np.float32]:
        return embedder.embed(pixels, Landmarks(*[(float(x), float(y)) for x, y in points]))

    started = time.perf_counter()
    originals = [embed(*person) for person in people]
    print(f"{len(people)} people, {(time.perf_counter() - started) / len(people) * 1000:.0f} ms a face\n")
    strangers = np.array(
        [embedder.distance(one, other) for i, one in enumerate(originals) for other in originals[:i]]
    )
    print(f"{'distance':34} {'mean':>6} {'least':>6} {'5 %':>6} {'95 %':>6} {'most':>6}")
    show("different people", strangers)
    same = {}
    for name, change in CHANGES.items():
        same[name] = np.array(
            [
                embedder.distance(original, embed(*change(*person)))
                for original, person in zip(originals, people, strict=True)
            ]
        )
        show(name, same[name])
    everything = np.concatenate(list(same.values()))
    print(f"\n{'threshold':>9} {'strangers below':>16} {'same person above':>18}")
    for threshold in THRESHOLDS:
        below, above = np.mean(strangers < threshold), np.mean(everything >= threshold)
        print(f"{threshold:9.2f} {below:16.2%} {above:18.2%}")


def show(name: str, distances: npt.NDArray[np.float64]) -> None:
    """Print one distribution."""
    low, high = np.percentile(distances, [5, 95])
    figures = (distances.mean(), distances.min(), low, high, distances.max())
    print(f"{name:34}", *(f"{figure:6.2f}" for figure in figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PORTRAITS)
