"""Rendered portraits for evaluation: seeds of their own, framed as the network's crops, and where the head
is.

The renderer comes before; the measuring networks (`measures.py`) and the experiments come after.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from model.renderer.parameters import (
    Attributes,
    Identity,
    Rows,
    sample_attributes,
    sample_identities,
)
from model.renderer.picture import render
from model.training.pool import framed

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Begins every seed of this package ("eval" in ASCII): a seed that does not begin so shares no draw with it.
SEED = 0x6576616C
# The levels between a black and a white background where nothing hides it.
SHOWN = 255


class Stream(IntEnum):
    """What portraits are drawn for; portraits of different streams share no identity and no attributes."""

    VALIDATION = 1
    PAIRS = 2
    SUBJECTS = 3
    STRANGERS = 4
    GALLERY = 5


@dataclass(frozen=True)
class Portraits:
    """Portraits with the parameters behind them; pictures are uint8 (n, size, size, 3) sRGB."""

    identities: Identity
    attributes: Attributes
    pictures: Pixels

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, chosen: Rows) -> "Portraits":
        """Return the chosen portraits."""
        return Portraits(self.identities.rows(chosen), self.attributes.rows(chosen), self.pictures[chosen])


def sample(stream: Stream, count: int, size: int) -> Portraits:
    """Return `count` portraits of different identities in different attributes, the same for the same stream.

    A sample of another count is another sample: the draws of its parameters follow one another.
    """
    identities = sample_identities((SEED, stream, 0), count)
    return portray(identities, sample_framed(stream, count), size)


def sample_framed(stream: Stream, count: int) -> Attributes:
    """Return attributes framed as those the networks are trained on (`model.training.pool`)."""
    return framed(sample_attributes((SEED, stream, 1), count), (SEED, stream, 2))


def portray(identities: Identity, attributes: Attributes, size: int) -> Portraits:
    """Render identity i in attributes i."""
    return Portraits(identities, attributes, render(identities, attributes, size))


def backgrounds(portraits: Portraits) -> Mask:
    """Return (n, size, size): True where nothing but the background shows, neither head nor hair nor
    shoulders.

    Each portrait is rendered before black and before white: the background shows where both differ wholly.
    """
    shape = (len(portraits), 3)
    black, white = (
        render(
            portraits.identities,
            replace(portraits.attributes, background=colour, background_end=colour),
            portraits.pictures.shape[1],
        ).astype(np.int16)
        for colour in (np.zeros(shape, np.float32), np.ones(shape, np.float32))
    )
    return np.asarray((white - black).min(axis=3) >= SHOWN)
