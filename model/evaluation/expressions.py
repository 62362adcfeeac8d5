"""A photographed face's pose, mouth and eyes, from the points of the face mesh (`model.faces.landmarks`).

The finder's face comes before; `folders.py` compares what is read of photos and results. It is the
differences that count: a face is fitted to one average head, so that angles are off by a few degrees, the
same way in both.
"""

from dataclasses import dataclass
from math import asin, atan2, degrees

import cv2
import numpy as np

from model.faces.detection import PRESENT
from model.faces.face import Face
from model.faces.landmarks import MARGIN, SIDE, FaceMesh, upright_angle
from model.faces.pyramid import Pixels, Points, Pyramid, View

# Points of the mesh, and where they lie on an average adult head in millimetres from the nose's tip: x to the
# viewer's right, y down, z away from the viewer (after Farkas, "Anthropometry of the Head and Face", 1994).
HEAD = {
    4: (0.0, 0.0, 0.0),  # tip of the nose
    168: (0.0, -46.0, 16.0),  # bridge
    33: (-45.0, -38.0, 36.0),  # outer corners of the eyes
    263: (45.0, -38.0, 36.0),
    133: (-16.0, -37.0, 30.0),  # inner corners
    362: (16.0, -37.0, 30.0),
    61: (-26.0, 30.0, 24.0),  # corners of the mouth
    291: (26.0, 30.0, 24.0),
    152: (0.0, 70.0, 20.0),  # chin
}
# Inner edges of the lips: above, below, corners; lids of each eye: above, below, corners.
MOUTH = (13, 14, 78, 308)
EYES = ((159, 145, 33, 133), (386, 374, 263, 362))
# As far away as a portrait is taken, in widths of the face.
CAMERA = 6.0


@dataclass(frozen=True)
class Expression:
    """Angles in degrees (positive: nose to the right, nose down, clockwise); openings as part of their
    width.
    """

    yaw: float
    pitch: float
    roll: float
    mouth_open: float
    eyes_open: float


def expression_of(mesh: FaceMesh, pixels: Pixels, face: Face) -> Expression | None:
    """Return what a found face shows; None where it has no landmarks, or the mesh sees no face there."""
    if face.landmarks is None:
        return None
    marks = face.landmarks
    mouth = (np.asarray(marks.mouth_left) + np.asarray(marks.mouth_right)) / 2
    angle = upright_angle(np.asarray(marks.left_eye), np.asarray(marks.right_eye), mouth)
    box = face.box
    view = View((box.x + box.width / 2, box.y + box.height / 2), max(box.width, box.height), angle)
    return expression_in(mesh, pixels, view)


def expression_in(mesh: FaceMesh, pixels: Pixels, view: View) -> Expression | None:
    """Return what the face in a view shows, the view being its square without margin; None where there is
    none.
    """
    # The mesh needs no more detail than its input has.
    halvings = int(np.log2(max(1.0, view.length * MARGIN / SIDE)))
    fitted = mesh.fit(Pyramid(pixels, [0.5**step for step in range(1, halvings + 1)]), view)
    if fitted.presence < PRESENT:
        return None
    yaw, pitch, roll = pose_of(fitted.points)
    eyes = [_opening(fitted.points, eye) for eye in EYES]
    return Expression(yaw, pitch, roll, _opening(fitted.points, MOUTH), sum(eyes) / len(eyes))


def pose_of(points: Points) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in degrees of a mesh (468, 2), by fitting the average head to it."""
    seen = points[list(HEAD)]
    size = float(np.ptp(seen, axis=0).max())
    centre = seen.mean(axis=0)
    camera = np.array([[CAMERA * size, 0, centre[0]], [0, CAMERA * size, centre[1]], [0, 0, 1]])
    _, turn, _ = cv2.solvePnP(
        np.asarray(list(HEAD.values())), seen, camera, np.zeros(4), flags=cv2.SOLVEPNP_SQPNP
    )
    rotation = np.asarray(cv2.Rodrigues(turn)[0], np.float64)
    nose, across = -rotation[:, 2], rotation[:, 0]
    yaw = atan2(float(nose[0]), -float(nose[2]))
    pitch = asin(float(np.clip(nose[1], -1, 1)))
    return degrees(yaw), degrees(pitch), degrees(atan2(float(across[1]), float(across[0])))


def _opening(points: Points, indices: tuple[int, int, int, int]) -> float:
    above, below, left, right = points[list(indices)]
    return float(np.hypot(*(below - above)) / max(float(np.hypot(*(right - left))), 1e-6))
