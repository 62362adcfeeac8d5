"""Draws found faces into a photo, for people to look at: boxes, landmarks, scores.

The finder comes before; writing the picture comes after.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from model.faces.face import Face
from model.faces.pyramid import Pixels

SURE, NO_LANDMARKS, POINT, DARK = (0, 220, 90), (255, 160, 0), (255, 40, 200), (0, 0, 0)


def draw(pixels: Pixels, faces: Sequence[Face]) -> Pixels:
    """Return a copy of a photo (height, width, 3) with each face's box, landmarks, index and score.

    Boxes without landmarks are orange. Lines and letters grow with the photo, to be read at 12 megapixels.
    """
    picture = np.ascontiguousarray(pixels).copy()
    line = max(1, round(max(picture.shape[:2]) / 1000))
    for index, face in enumerate(faces):
        box, colour = face.box, NO_LANDMARKS if face.landmarks is None else SURE
        corner, opposite = (round(box.x), round(box.y)), (round(box.x + box.width), round(box.y + box.height))
        cv2.rectangle(picture, corner, opposite, colour, line)
        if face.landmarks is not None:
            marks = face.landmarks
            radius = max(line, round(box.width / 50))
            for x, y in (marks.left_eye, marks.right_eye, marks.nose, marks.mouth_left, marks.mouth_right):
                cv2.circle(picture, (round(x - 0.5), round(y - 0.5)), radius, POINT, cv2.FILLED, cv2.LINE_AA)
        _label(picture, f"{index} {face.score:.2f}", corner, line)
    return picture


def _label(picture: Pixels, text: str, corner: tuple[int, int], line: int) -> None:
    """Write white letters with a dark rim above a box's upper left corner, or below where the photo ends."""
    size = 0.4 + 0.35 * line
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line)
    x = int(np.clip(corner[0], 0, max(0, picture.shape[1] - width)))
    y = max(height + 2 * line, corner[1] - 2 * line)
    for colour, thickness in ((DARK, 3 * line), ((255, 255, 255), line)):
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA)
