"""Whether a made face is still found as one (Figure 10), by the project's own finder on enlarged pictures."""

from typing import Protocol

import numpy as np
from PIL import Image

from model.evaluation.portraits import Pixels
from model.faces.face import Face
from model.renderer.parameters import Floats

# The finder looks at photos; at this size it finds every rendered portrait, in a fifth of a second.
ENLARGED = 128
# Of portraits that are faces, at least this part must be found, or the measure says nothing.
TRUSTED = 0.95


class Finder(Protocol):
    """Finds the faces in a photo's pixels."""

    def find(self, pixels: Pixels) -> list[Face]:
        """Return every face in uint8 sRGB pixels (height, width, 3)."""


def found(finder: Finder, pictures: Pixels) -> Floats:
    """Return 1 where at least one face is found in a picture (n, size, size, 3), else 0, as (n,)."""
    return np.asarray([bool(finder.find(_enlarged(picture))) for picture in pictures], np.float64)


def _enlarged(picture: Pixels) -> Pixels:
    size = max(ENLARGED, picture.shape[0])
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))
