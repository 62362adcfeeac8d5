"""Prints how many portraits the renderer draws in a second on one thread, and draws a sheet to look at.

    python -m bench.renderer sheet.png [--size 64] [--identities 8] [--attributes 10] [--enlarged 2]

A row of the sheet is one identity, a column one set of attributes. Time is the processor's, so that other
load counts little.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from model.renderer.groups import crossed
from model.renderer.parameters import sample_attributes, sample_identities
from model.renderer.picture import render


def print_speed(size: int, count: int) -> None:
    """Print portraits a second, the best of three runs."""
    identities, attributes = sample_identities(0, count), sample_attributes(1, count)
    seconds = []
    for _ in range(3):
        begin = time.thread_time()
        render(identities, attributes, size)
        seconds.append(time.thread_time() - begin)
    print(f"{size:4d} px: {count / min(seconds):7.1f} portraits a second on one thread")


def main() -> None:
    """Print the speeds and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    for name, value in (("size", 64), ("identities", 8), ("attributes", 10), ("enlarged", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    for size, count in ((64, 240), (128, 48), (256, 12), (512, 3)):
        print_speed(size, count)
    rows, columns, size = chosen.identities, chosen.attributes, chosen.size
    group = crossed(sample_identities(chosen.seed, rows), sample_attributes(chosen.seed + 1, columns))
    pictures = render(*group, size).reshape(rows, columns, size, size, 3)
    sheet = pictures.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    enlarged = np.ones((chosen.enlarged, chosen.enlarged, 1), np.uint8)
    Image.fromarray(np.kron(sheet, enlarged)).save(chosen.sheet)


if __name__ == "__main__":
    main()
