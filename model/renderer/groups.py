"""Groups: each of some identities in each of some attributes, and the triplets for training in them.

Sampled parameters (`parameters.py`) come before; training indexes a group's pictures with the triplets. A
group of n identities by m attributes is n * m pictures, and n * (n - 1) * m * (m - 1) triplets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import ParameterError
from model.renderer.parameters import Attributes, Identity

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Triplets:
    """Indices (k,) of a group's portraits; the truth is the source's identity in the driving's attributes."""

    source: Indices
    driving: Indices
    truth: Indices


def crossed(identities: Identity, attributes: Attributes) -> tuple[Identity, Attributes]:
    """Return the n * m pairs of them all: portrait i * m + j is identity i in attributes j."""
    rows, columns = np.divmod(np.arange(len(identities) * len(attributes)), len(attributes))
    return identities.rows(rows), attributes.rows(columns)


def triplets(identities: int, attributes: int) -> Triplets:
    """Return every triplet of a group of so many identities by so many attributes, as `crossed` numbers them.

    Source and driving differ in identity and attributes. Raises ParameterError where there is but one.
    """
    if identities == 1 or attributes == 1:
        raise ParameterError(
            f"a group of {identities} identities by {attributes} attributes has no triplet, 2 by 2 has"
        )
    one, other, source, driving = np.indices((identities, identities, attributes, attributes)).reshape(4, -1)
    differ = (one != other) & (source != driving)
    one, other, source, driving = one[differ], other[differ], source[differ], driving[differ]
    return Triplets(one * attributes + source, other * attributes + driving, one * attributes + driving)
