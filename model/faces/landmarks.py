"""Five landmarks of a face from MediaPipe's 468-point face mesh, given roughly where the face is.

The detector's sighting comes before; aligning the face to the crop the network was trained on comes after.
"""

from dataclasses import dataclass
from math import tanh
from pathlib import Path

import numpy as np

from model.faces.face import Landmarks
from model.faces.pyramid import Points, Pyramid, View
from model.faces.tflite import Network

WEIGHTS = Path(__file__).parent / "weights" / "face_landmark.tflite"
SIDE = 192
# Indices into the mesh's 468 points; left is the viewer's. From the canonical face model of MediaPipe.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
NOSE, MOUTH_LEFT, MOUTH_RIGHT = 4, 61, 291
# The mesh was trained on squares 1.5 times as large as the face.
MARGIN = 1.5
# A certainty below which a second, better placed look has never helped.
ABSENT = 0.001


@dataclass(frozen=True)
class Mesh:
    """A face's points (468, 2) in the photo, and the network's certainty, 0 to 1, that it saw a face."""

    points: Points
    presence: float

    def five(self) -> Landmarks:
        """Return the eyes' centres, the nose's tip and the mouth's corners."""

        def mean(indices: tuple[int, ...]) -> tuple[float, float]:
            x, y = self.points[list(indices)].mean(axis=0)
            return float(x), float(y)

        return Landmarks(
            mean(LEFT_EYE), mean(RIGHT_EYE), mean((NOSE,)), mean((MOUTH_LEFT,)), mean((MOUTH_RIGHT,))
        )


def upright_angle(left_eye: Points, right_eye: Points, mouth: Points) -> float:
    """Return a face's rotation in radians, clockwise as seen, by the lines between its eyes and to its mouth.

    Both count by their length, so that a profile, whose eyes are one behind the other, is told by its mouth.
    """
    x, y = (right_eye - left_eye) / 2
    down_x, down_y = mouth - (left_eye + right_eye) / 2
    return float(np.arctan2(y - down_x, x + down_y))


class FaceMesh:
    """The network that gives a face's mesh; loads its weights (2.4 MB) once. For one thread at a time."""

    def __init__(self, threads: int) -> None:
        self._network = Network(WEIGHTS, threads)

    def fit(self, photo: Pyramid, face: View) -> Mesh:
        """Return the mesh of the face in a view, which is the face's square without margin, turned upright.

        Looks twice, the second time at the square of the first mesh, unless the first saw no face at all.
        """
        first = self._look(photo, face)
        return first if first.presence < ABSENT else self._look(photo, _square(first.points))

    def _look(self, photo: Pyramid, face: View) -> Mesh:
        view = View(face.centre, face.length * MARGIN, face.angle)
        outputs = self._network(photo.tile(view, SIDE)[None].astype(np.float32) / np.float32(255))
        points = outputs["conv2d_20"].reshape(468, 3)[:, :2].astype(np.float64)
        presence = (1 + tanh(outputs["conv2d_30"].item() / 2)) / 2  # the logistic function, without overflow
        return Mesh(view.to_photo(points, SIDE), presence)


def _square(points: Points) -> View:
    """Return the square around a mesh, turned upright, as long as the longer side of its extent."""
    angle = upright_angle(
        points[list(LEFT_EYE)].mean(axis=0),
        points[list(RIGHT_EYE)].mean(axis=0),
        points[[MOUTH_LEFT, MOUTH_RIGHT]].mean(axis=0),
    )
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    upright = points @ turn
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn @ ((low + high) / 2)
    return View((float(x), float(y)), float((high - low).max()), angle)
