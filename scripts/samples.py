"""Draws the rendered sample pictures in `samples/`: portraits of nobody, and three of them side by side.

Run as `python scripts/samples.py`; the same seeds give the same files.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from model.renderer.parameters import sample_attributes, sample_identities
from model.renderer.picture import render

SAMPLES = Path(__file__).parent.parent / "samples"
SEED, DRAWN = 3, 32
PORTRAITS = {"portrait-1": 12, "portrait-2": 5, "portrait-3": 18, "portrait-4": 20}
PORTRAIT_SIZE = 384
GROUP = (30, 29, 25)
GROUP_SIZE = 320
WALL = (0.72, 0.74, 0.70)


def main() -> None:
    """Write the pictures."""
    identities, attributes = sample_identities(SEED, DRAWN), sample_attributes(SEED, DRAWN)
    for name, index in PORTRAITS.items():
        row = np.array([index])
        (pixels,) = render(identities.rows(row), attributes.rows(row), PORTRAIT_SIZE)
        Image.fromarray(pixels).save(SAMPLES / f"{name}.png", optimize=True)
    rows = np.array(GROUP)
    wall = np.tile(np.float32(WALL), (len(GROUP), 1))
    before_a_wall = replace(attributes.rows(rows), background=wall, background_end=wall)
    group = np.hstack(list(render(identities.rows(rows), before_a_wall, GROUP_SIZE)))
    Image.fromarray(group).save(SAMPLES / "group.png", optimize=True)


if __name__ == "__main__":
    main()
