"""Prints what the finder finds, how exactly and how fast: on the test set, sample photos and portraits.

    python -m bench.detection [--portraits FOLDER]

The portraits are 50 photos of one person each, 500 pixels square; they are not part of the project, and their
part is left out where the folder does not exist.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from bench.detection_set import Photo, Pixels, Score, Truth, canvas, covered, darkened, grey, noisy, score
from model.faces.detection import FaceFinder
from model.faces.drawing import draw
from model.faces.face import Face

PORTRAITS = Path(__file__).parent.parent.parent / "shared" / "photos" / "portraits"
# Which of the photos that scikit-image ships have a person's face: all others have none.
WITH_FACES = {"astronaut.png": 1, "camera.png": 1}
NOT_PHOTOS = {"multipage.tif", "multipage_rgb.tif"}
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def read(path: Path) -> Pixels:
    """Read a picture as RGB."""
    return np.ascontiguousarray(np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1])


def conditions() -> Iterator[tuple[str, list[tuple[Pixels, list[Truth]]]]]:
    """Yield each condition of the test set with its photos and their truths."""

    def alone(width: float, angle: float = 0.0, kind: str = "gradient", *, mirrored: bool = False) -> Photo:
        return canvas(kind, 900, 700).paste(width, (431, 333), angle, mirrored=mirrored)

    def as_they_are(photos: Iterable[Photo]) -> list[tuple[Pixels, list[Truth]]]:
        return [(photo.pixels, photo.truths) for photo in photos]

    def changed(change: Callable[[Pixels], Pixels]) -> list[tuple[Pixels, list[Truth]]]:
        photos = [alone(width, angle, "texture") for width in (30, 60, 120, 240) for angle in (0, 30)]
        return [(change(photo.pixels), photo.truths) for photo in photos]

    kinds = ("noise", "gradient", "texture")
    for width in (16, 20, 24, 30, 40, 60, 100, 200, 320):
        yield f"upright, {width} px", as_they_are(alone(width, kind=kind) for kind in kinds)
    for width in (1000, 2000):
        yield f"upright, {width} px", as_they_are([canvas("gradient", 2600, 2400).paste(width, (1300, 1250))])
    for least, most in ((15, 30), (45, 60), (75, 90), (105, 135), (150, 180)):
        angles = [sign * angle for angle in range(least, most + 1, 15) for sign in (1, -1)]
        for width in (30, 120):
            name = f"turned {least} to {most} degrees, {width} px"
            yield name, as_they_are(alone(width, angle, kind) for angle in angles for kind in kinds)
    yield "mirrored", as_they_are(alone(width, mirrored=True) for width in (30, 60, 120, 240))
    for name, change in (("dark", darkened), ("noisy", noisy), ("grey", grey)):
        yield name, changed(change)
    for part in ("eyes", "mouth", "side"):
        photos = [alone(width) for width in (30, 60, 120, 240)]
        yield f"covered: {part}", [(covered(photo, part), photo.truths) for photo in photos]
    for inside in (0.4, 0.25, 0.1):
        # The box's centre lies this many widths from the edge: 0.1 leaves 60 percent of the face.
        places = [(inside, 1.5), (1.5, inside), (inside, inside)]
        yield (
            f"at the edge, centre {inside} widths inside",
            as_they_are(
                canvas("gradient", 700, 500).paste(width, (x * width, y * width))
                for width in (40, 120)
                for x, y in places
            ),
        )


def print_conditions(finder: FaceFinder) -> None:
    """Print recall, false finds and landmark error per condition."""
    print(f"{'condition':40} {'recall':>9} {'false':>6} {'error':>6} {'worst':>6}   (error in eye distances)")
    for name, photos in conditions():
        scores = [score(truths, finder.find(pixels)) for pixels, truths in photos]
        print_scores(name, scores)


def print_scores(name: str, scores: list[Score]) -> None:
    """Print one row of the table."""
    errors = [error for each in scores for error in each.errors] or [float("nan")]
    recall = f"{sum(each.found for each in scores)}/{sum(each.expected for each in scores)}"
    false = sum(each.false for each in scores)
    print(f"{name:40} {recall:>9} {false:6} {np.mean(errors):6.3f} {max(errors):6.3f}")


def print_samples(loose: FaceFinder) -> None:
    """Print the finds in the photos that scikit-image ships, at several thresholds."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        print("scikit-image is not installed: its sample photos are left out")
        return
    paths = sorted((Path(spec.origin).parent / "data").glob("*.*"))
    photos = [path for path in paths if path.suffix in {".png", ".jpg"} and path.name not in NOT_PHOTOS]
    finds = {path.name: loose.find(read(path)) for path in photos}
    for threshold in THRESHOLDS:
        counts = {
            name: len([face for face in faces if face.score >= threshold]) - WITH_FACES.get(name, 0)
            for name, faces in finds.items()
        }
        some = ", ".join(f"{name} {count:+}" for name, count in counts.items() if count)
        print(
            f"threshold {threshold}: {sum(map(abs, counts.values()))} wrong "
            f"in {len(photos)} photos: {some or '-'}"
        )


def in_middle(faces: list[Face], size: int) -> list[Face]:
    """Return the finds that can be a portrait's: at least a tenth of the picture wide."""
    return [face for face in faces if face.box.width >= size / 10]


def print_portraits(loose: FaceFinder, folder: Path) -> None:
    """Print recall per picture size and threshold, and the doubtful ones by name."""
    paths = sorted(folder.glob("*.jpg"))
    for size in (500, 250, 120, 60):
        best: dict[str, float] = {}
        others: list[float] = []
        for path in paths:
            pixels = cv2.resize(read(path), (size, size), interpolation=cv2.INTER_AREA)
            faces = sorted(loose.find(np.asarray(pixels, np.uint8)), key=lambda face: -face.score)
            portrait = in_middle(faces, size)[:1]
            best[path.stem] = portrait[0].score if portrait else 0.0
            others += [face.score for face in faces if face not in portrait]
        rows = ", ".join(
            f"{threshold}: {sum(value >= threshold for value in best.values())} "
            f"(+{sum(value >= threshold for value in others)})"
            for threshold in THRESHOLDS
        )
        doubtful = ", ".join(f"{name} {value:.2f}" for name, value in best.items() if value < 0.7)
        print(
            f"{len(paths)} portraits at {size} px, found (and other finds) by threshold: {rows}; "
            f"below 0.7: {doubtful}"
        )


def collage(folder: Path, people: int, seed: int) -> tuple[Pixels, list[tuple[str, float, float, float]]]:
    """Return 12 megapixels of portraits at mixed sizes and angles, and each one's name, place and side."""
    rng = np.random.default_rng(seed)
    columns = {10: 4, 20: 5, 40: 8}[people]
    rows = -(-people // columns)
    ground = rng.integers(70, 190, (7, 9, 3)).astype(np.uint8)
    pixels = np.asarray(cv2.resize(ground, (4032, 3024), interpolation=cv2.INTER_CUBIC), np.uint8)
    cell = (4032 / columns, 3024 / rows)
    places = []
    for index, path in enumerate(rng.permutation(np.array(sorted(map(str, folder.glob("*.jpg")))))[:people]):
        side = float(np.exp(rng.uniform(np.log(110), np.log(0.7 * min(cell)))))
        angle = float(rng.uniform(-50, 50))
        x, y = (index % columns + 0.5) * cell[0], (index // columns + 0.5) * cell[1]
        portrait = cv2.resize(read(Path(path)), (round(side), round(side)), interpolation=cv2.INTER_AREA)
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
        matrix[:, 2] += np.array([x - side / 2, y - side / 2])
        inside = cv2.warpAffine(np.full(portrait.shape[:2], 255, np.uint8), matrix, (4032, 3024)) > 250
        pixels[inside] = cv2.warpAffine(portrait, matrix, (4032, 3024))[inside]
        places.append((Path(path).stem, x, y, side))
    return pixels, places


def print_collages(finder: FaceFinder, folder: Path, draw_to: Path | None) -> None:
    """Print recall, other finds and time in group photos."""
    for people in (10, 20, 40):
        pixels, places = collage(folder, people, people)
        start = time.perf_counter()
        faces = finder.find(pixels)
        seconds = time.perf_counter() - start
        missed, left = [], list(faces)
        for name, x, y, side in places:
            match = next(
                (
                    face
                    for face in left
                    if np.hypot(face.box.x + face.box.width / 2 - x, face.box.y + face.box.height / 2 - y)
                    < 0.4 * side
                    and face.box.width > 0.1 * side
                ),
                None,
            )
            if match is None:
                missed.append(f"{name} ({side:.0f} px)")
            else:
                left.remove(match)
        found = people - len(missed)
        print(
            f"collage: {found}/{people}, {len(left)} others, {seconds:.2f} s; "
            f"missed: {', '.join(missed) or '-'}"
        )
        if draw_to is not None:
            cv2.imwrite(str(draw_to / f"collage-{people}.jpg"), draw(pixels, faces)[..., ::-1])


def memory(name: str) -> float:
    """Return this process's memory in megabytes: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def print_speed(finder: FaceFinder) -> None:
    """Print time and memory for photos of several sizes with ten faces each."""
    for width, height in ((640, 480), (1600, 1200), (4032, 3024), (8160, 6120)):
        photo = canvas("texture", width, height)
        for index in range(10):
            side = width / 40 * (1 + index % 4)
            photo.paste(side, ((0.5 + index % 5) * width / 5, (0.5 + index // 5) * height / 2))
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forgets the highest memory use so far
        before = memory("VmRSS")
        times = []
        for _ in range(3):
            start = time.perf_counter()
            faces = finder.find(photo.pixels)
            times.append(time.perf_counter() - start)
        more = memory("VmHWM") - before
        megapixels = width * height / 1e6
        print(
            f"{megapixels:5.1f} megapixels, {score(photo.truths, faces).found}/10 faces: {min(times):.2f} s, "
            f"{1000 * min(times) / megapixels:.0f} ms a megapixel, peak memory {more:+.0f} MB"
        )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(os.environ.get("FACE_ANON_PORTRAITS", PORTRAITS))
    parser.add_argument(
        "--portraits", type=Path, default=folder, help="default: $FACE_ANON_PORTRAITS, or %(default)s"
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="writes the collages with their finds there"
    )
    arguments = parser.parse_args()
    finder, loose = FaceFinder(), FaceFinder(threshold=THRESHOLDS[0])
    print_speed(finder)
    print_conditions(finder)
    print_samples(loose)
    if not arguments.portraits.is_dir():
        print(f"{arguments.portraits} does not exist: the portraits are left out")
        return
    print_portraits(loose, arguments.portraits)
    print_collages(finder, arguments.portraits, arguments.draw)


if __name__ == "__main__":
    main()
