"""Finds every face in a photo: boxes, scores and landmarks.

Reading the photo comes before; aligning each face, or covering it, comes after. A missed face is the worst
bug here: the first look keeps whatever might be a face, and a second look, at each candidate alone, decides.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import ceil, log, pi, sqrt
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from model.errors import ParameterError, PictureError
from model.faces.face import Box, Face, Landmarks
from model.faces.landmarks import FaceMesh, Mesh, upright_angle
from model.faces.pyramid import Pixels, Points, Pyramid, View
from model.faces.tflite import Network

WEIGHTS = Path(__file__).parent / "weights" / "face_detection_full_range.tflite"
# The detector's input and the step of its grid of anchors, in pixels.
SIDE, STRIDE = 192, 4
# The finest look at a photo: 0.6 shows a face of 24 pixels as 14, about the smallest the detector is fairly
# sure of. Photos below 12 megapixels are looked at in more detail, for the same time.
FINEST, FINEST_SMALL, FINEST_PIXELS = 0.6, 1.4, 4.4e6
# Neighbouring tiles share this many pixels: larger faces are whole in a tile of the next scale.
OVERLAP = 40
# Tiles reach beyond the photo's edge by this many pixels, as faces at a tile's very edge are seen badly.
EDGE = 8
# The second look shows a candidate at the widths in pixels at which the detector is surest, doubtful ones at
# others too, tilted a little.
BEST_WIDTHS, OTHER_WIDTHS, TILTS = (56, 32), (32, 44, 56), (-0.2, 0.2)
# Scores from which a first and a later look count.
WEAK, WEAK_AGAIN = 0.25, 0.05
# The part of the threshold that the mean of both looks must reach to be looked at with the mesh.
DOUBTFUL = 0.8
# Certainty from which the mesh is on a face, rather than somewhere near one.
PRESENT = 0.5
# Sightings that share more than this part of their union with the best one are joined with it.
CLOSE = 0.65
# Of two finds that share more than these parts, of their union or of the smaller, one is a double.
SAME, INSIDE = 0.3, 0.7
# The turns at which a photo is looked at: the detector is at ease within 30 degrees of upright.
TURNS = 6
# A narrower find carries no identity, and is more often texture than a face.
NARROWEST = 8.0


@dataclass(frozen=True)
class Sighting:
    """A face that a look saw: its width, and (7, 2) the centre of its square, eyes, nose, mouth, ears."""

    score: float
    width: float
    places: Points

    @property
    def view(self) -> View:
        """The face's square, turned upright."""
        centre, left_eye, right_eye, _, mouth = self.places[:5]
        return View(
            (float(centre[0]), float(centre[1])), self.width, upright_angle(left_eye, right_eye, mouth)
        )


@dataclass(frozen=True)
class Sightings:
    """Several sightings: scores (n,), widths (n,), places (n, 7, 2)."""

    scores: NDArray[np.float64]
    widths: NDArray[np.float64]
    places: Points

    def where(self, chosen: NDArray[np.bool_]) -> "Sightings":
        """Return those of a mask (n,)."""
        return Sightings(self.scores[chosen], self.widths[chosen], self.places[chosen])

    def near(self, other: Sighting) -> "Sightings":
        """Return those of about the place and size of another."""
        distances = np.hypot(*(self.places[:, 0] - other.places[0]).T)
        ratios = self.widths / other.width
        return self.where((distances < other.width / 2) & (ratios > 1 / 2) & (ratios < 2))  # noqa: PLR2004

    def merged(self) -> list[Sighting]:
        """Join those of the same face to their mean, weighted by score; best first (BlazeFace, 3.3)."""
        left = self
        merged = []
        while left.scores.size:
            best = int(left.scores.argmax())
            union, _ = _shared(left.places[best, 0], float(left.widths[best]), left.places[:, 0], left.widths)
            union[best] = 1.0  # whatever its width
            group = left.where(union > CLOSE)
            weights = group.scores / group.scores.sum()
            merged.append(
                Sighting(
                    float(left.scores[best]),
                    float(weights @ group.widths),
                    np.tensordot(weights, group.places, axes=1),
                )
            )
            left = left.where(union <= SAME)
        return merged


@dataclass(frozen=True)
class _Find:
    """A candidate after its second look."""

    score: float
    sighting: Sighting
    mesh: Mesh | None


class BlazeFace:
    """MediaPipe's full-range face detector (Bazarevsky et al., 2019); loads its weights (1.1 MB) once."""

    def __init__(self, threads: int) -> None:
        self._network = Network(WEIGHTS, threads)
        steps = np.arange(STRIDE / 2, SIDE, STRIDE)
        self._anchors = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)

    def look(self, photo: Pyramid, view: View, weakest: float) -> Sightings:
        """Return what is seen in a view with a score of at least `weakest`, each face many times."""
        outputs = self._network(photo.tile(view, SIDE)[None].astype(np.float32) / 127.5 - 1)
        logits = outputs["reshaped_classifier_face_4"][0, :, 0]  # (2304,)
        seen = np.flatnonzero(logits >= log(weakest / (1 - weakest)))
        values = outputs["reshaped_regressor_face_4"][0, seen].astype(np.float64)  # (n, 16)
        places = np.concatenate([values[:, None, :2], values[:, 4:].reshape(-1, 6, 2)], axis=1)
        places = view.to_photo(places + self._anchors[seen][:, None], SIDE)
        return Sightings(
            scores=1 / (1 + np.exp(-logits[seen].astype(np.float64))),
            widths=values[:, 2:4].mean(axis=1) * (view.length / SIDE),
            places=places,
        )


class FaceFinder:
    """Finds the faces in photos; loads its networks once, in about 0.1 s.

    `threshold`, above 0 and below 1, is the score from which a find is returned; `threads` is what each
    network computes with. Raises ParameterError for a threshold outside of that. What the threshold trades,
    by bench/detection.py: how many of 50 hard portraits are found at 500, 250, 120 and 60 pixels, and
    how many finds are wrong in 26 photos almost without faces, over half of them in a field of galaxies.

    0.3: 49, 50, 50, 50 and 58 wrong
    0.4: 49, 49, 49, 49 and 21 wrong
    0.5: 49, 49, 49, 48 and 7 wrong
    0.6: 48, 48, 49, 47 and 2 wrong

    Several threads may share a finder: they take turns.
    """

    def __init__(self, threshold: float = 0.4, threads: int = 2) -> None:
        if not 0 < threshold < 1:
            raise ParameterError(f"the face threshold is {threshold}, it must be above 0 and below 1")
        self._threshold = threshold
        self._detector = BlazeFace(threads)
        self._mesh = FaceMesh(threads)
        self._turn = Lock()

    def find(self, pixels: Pixels) -> list[Face]:
        """Return every face in a photo (height, width, 3), in rows from the top, each from the left.

        Raises PictureError for anything but 8-bit RGB.
        """
        if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
            kind = f"{pixels.dtype} {pixels.shape}"
            raise PictureError(f"the picture is {kind}, it must be uint8 (height, width, 3)")
        if min(pixels.shape[:2]) < NARROWEST:  # a strip of 1 x 60,000 pixels would take minutes
            return []
        scales = list(_scales(*pixels.shape[:2]))
        photo = Pyramid(pixels, [scale for scale in scales if scale < 1])
        with self._turn:
            # All but the finest look is taken at every turn. The finest is taken upright, then the way most
            # faces are turned, or at every turn where none is found: the photo may lie on its side.
            turns = [2 * pi * turn / TURNS for turn in range(TURNS)]
            looks = [
                look for turn in turns for look in self._scan(photo, scales[1:] if turn else scales, turn)
            ]
            finds = self._confirm(photo, looks)
            counts = Counter(round(find.sighting.view.angle / turns[1]) % TURNS for find in finds)
            for turn in [counts.most_common(1)[0][0]] if counts else range(TURNS):
                if turn:
                    finds += self._confirm(photo, self._scan(photo, scales[:1], turns[turn]))
        return _reading_order([_face(find) for find in _distinct(finds)])

    def _scan(self, photo: Pyramid, scales: Sequence[float], angle: float) -> list[Sightings]:
        """Look at the whole photo at each scale through overlapping tiles turned by an angle."""
        return [
            self._detector.look(photo, View(centre, SIDE / scale, angle), WEAK)
            for scale in scales
            for centre in _tiles(photo, scale)
        ]

    def _confirm(self, photo: Pyramid, looks: list[Sightings]) -> list[_Find]:
        """Look again at each candidate; return those that hold."""
        finds = (self._look_again(photo, candidate) for candidate in _joined(looks).merged())
        return [
            find
            for find in finds
            if find and find.score >= self._threshold and find.sighting.width >= NARROWEST
        ]

    def _look_again(self, photo: Pyramid, first: Sighting) -> _Find | None:
        """Look at a candidate alone, turned upright, by both networks; more often where they disagree."""
        # A small face in noise is lost where it is enlarged most, as its noise then is too.
        looks = [self._closely(photo, first, width, 0) for width in BEST_WIDTHS]
        second = max((look for look in looks if look is not None), key=lambda look: look.score, default=None)
        if second is None or second.width < NARROWEST:
            return None
        score = (first.score + second.score) / 2
        if score < DOUBTFUL * self._threshold:
            return None
        mesh = self._mesh.fit(photo, second.view)
        if mesh.presence >= PRESENT:
            return _Find(score + (1 - score) * score * mesh.presence, second, mesh)
        # Half of a face, or one under a hat, still looks like one when moved a little; texture does not.
        return _Find(self._mean_of_more_looks(photo, second), second, None)

    def _mean_of_more_looks(self, photo: Pyramid, face: Sighting) -> float:
        """Return the mean score of looks at other widths and tilts, 0 once it cannot reach the threshold."""
        looks = [(width, tilt) for width in OTHER_WIDTHS for tilt in TILTS]
        total = 0.0
        for done, (width, tilt) in enumerate(looks, start=1):
            look = self._closely(photo, face, width, tilt)
            total += look.score if look else 0.0
            if total + (len(looks) - done) < self._threshold * len(looks):
                return 0.0
        return total / len(looks)

    def _closely(self, photo: Pyramid, face: Sighting, width: float, tilt: float) -> Sighting | None:
        """Return what is seen of a face shown upright at a width in the tile's pixels, tilted by radians."""
        view = View(face.view.centre, face.width * SIDE / width, face.view.angle + tilt)
        seen = self._detector.look(photo, view, WEAK_AGAIN).near(face).merged()
        return seen[0] if seen else None


def _scales(height: int, width: int) -> Iterator[float]:
    """Yield the looks' scales, each half of the one before, until the whole photo is half a tile."""
    scale = min(FINEST_SMALL, max(FINEST, sqrt(FINEST_PIXELS / (height * width))))
    yield scale
    while max(height, width) * scale > SIDE / 2:
        scale /= 2
        yield scale


def _tiles(photo: Pyramid, scale: float) -> list[tuple[float, float]]:
    """Return the centres of the tiles that cover the photo at a scale."""

    def centres(length: int) -> list[float]:
        count = ceil((length * scale + 2 * EDGE - OVERLAP) / (SIDE - OVERLAP))
        if count <= 1:
            return [length / 2]
        first = (SIDE / 2 - EDGE) / scale
        return [float(place) for place in np.linspace(first, length - first, count)]

    return [(x, y) for y in centres(photo.height) for x in centres(photo.width)]


def _joined(looks: Sequence[Sightings]) -> Sightings:
    """Put all looks' sightings together."""
    return Sightings(
        *(np.concatenate([getattr(look, part.name) for look in looks]) for part in fields(Sightings))
    )


def _shared(
    centre: Points, width: float, centres: Points, widths: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a square shares with others, as parts of their union and of the smaller of both (n,)."""
    smaller = np.minimum(width, widths)
    sides = (width + widths)[:, None] / 2 - np.abs(centres - centre)
    area = np.clip(sides, 0, smaller[:, None]).prod(axis=1)
    return area / (width**2 + widths**2 - area), area / smaller**2


def _distinct(finds: list[_Find]) -> list[_Find]:
    """Leave out doubles: of two finds that overlap much, or lie one in the other, the better is kept."""
    kept: list[_Find] = []
    for find in sorted(finds, key=lambda find: -find.score):
        centres = np.array([other.sighting.places[0] for other in kept]).reshape(-1, 2)
        widths = np.array([other.sighting.width for other in kept])
        union, smaller = _shared(find.sighting.places[0], find.sighting.width, centres, widths)
        if not ((union > SAME) | (smaller > INSIDE)).any():
            kept.append(find)
    return kept


def _face(find: _Find) -> Face:
    """Make a find a face, its box the smallest around the detector's square and the mesh."""
    sighting = find.sighting
    low, high = sighting.places[0] - sighting.width / 2, sighting.places[0] + sighting.width / 2
    if find.mesh is not None:
        low, high = (
            np.minimum(low, find.mesh.points.min(axis=0)),
            np.maximum(high, find.mesh.points.max(axis=0)),
        )
        landmarks: Landmarks | None = find.mesh.five()
    else:
        landmarks = _five(sighting)
    x, y, width, height = map(float, (*low, *(high - low)))
    return Face(Box(x, y, width, height), find.score, landmarks)


def _five(sighting: Sighting) -> Landmarks | None:
    """Return landmarks from the detector's own points, without the mesh; None where they coincide."""
    left, right, nose, mouth = sighting.places[1:5]
    eyes, middle = right - left, (left + right) / 2
    if np.hypot(*eyes) < 0.2 * sighting.width or np.hypot(*(mouth - middle)) < 0.2 * sighting.width:
        return None
    # The detector gives the mouth's centre only; a mouth at rest is 0.8 times as wide as the eyes are apart.
    points = (left, right, nose, mouth - 0.4 * eyes, mouth + 0.4 * eyes)
    return Landmarks(*((float(x), float(y)) for x, y in points))


def _reading_order(faces: list[Face]) -> list[Face]:
    """Sort into rows from the top, each from the left.

    A row is the topmost face left, and each whose middle is less than half the larger one's height below.
    """
    left = sorted(faces, key=lambda face: (_middle(face)[1], _middle(face)[0]))
    ordered = []
    while left:
        first = left[0]
        row = [
            face
            for face in left
            if _middle(face)[1] - _middle(first)[1] <= max(face.box.height, first.box.height) / 2
        ]
        ordered += sorted(row, key=_middle)
        left = [face for face in left if face not in row]
    return ordered


def _middle(face: Face) -> tuple[float, float]:
    return face.box.x + face.box.width / 2, face.box.y + face.box.height / 2
