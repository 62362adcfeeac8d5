"""Compares made faces with the portraits they were made of, and with what they should be: one value a face.

The measuring network (`readings.py`) and the true parameters come before; `experiments.py` averages.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.evaluation.measures import truths
from model.evaluation.networks import EXPRESSION, GAZE, LOOKS, PARAMETERS, POSE, SHAPE
from model.evaluation.portraits import Mask, Pixels, Portraits, backgrounds
from model.evaluation.readings import Measures, Read, distances
from model.renderer.parameters import Floats

GROUPS: Mapping[str, tuple[str, ...]] = {
    "pose": POSE,
    "gaze": GAZE,
    "expression": EXPRESSION,
    "shape": SHAPE,
    "looks": LOOKS,
}
DEGREES = np.float32(180 / np.pi)
# Also told alone.
SINGLE = ("yaw", "pitch", "mouth_open", "smile", "eyes_open")
# A perfect copy has no finite ratio.
MOST_DECIBEL = 60.0


@dataclass(frozen=True)
class Yardstick:
    """What faces are compared with: n portraits, what is read of them, their truths, and a gallery.

    `embeddings` (m, k) are the gallery's, the portraits' own first.
    """

    portraits: Portraits
    read: Read
    truth: Floats
    background: Mask
    gallery: Floats

    @classmethod
    def of(cls, measures: Measures, portraits: Portraits, others: Floats) -> "Yardstick":
        """Return the yardstick of portraits, in a gallery with the embeddings of `others` (k, ...)."""
        read = measures.read(portraits.pictures)
        gallery = np.concatenate((read.embeddings, others))
        truth = truths(portraits.identities, portraits.attributes)
        return cls(portraits, read, truth, backgrounds(portraits), gallery)

    def first(self, count: int) -> "Yardstick":
        """Return the yardstick of the first portraits, in the same gallery."""
        few = slice(0, count)
        read = Read(self.read.parameters[few], self.read.embeddings[few])
        return Yardstick(self.portraits.rows(few), read, self.truth[few], self.background[few], self.gallery)


def errors(measures: Measures, read: Read, truth: Floats) -> dict[str, Floats]:
    """Return errors (n,) by group, and of some parameters alone; only of what can be read and can be seen.

    Each is the absolute difference of what is read to the truth. A group's is the mean of its parameters',
    each in units of its standard deviation over all portraits; angles alone are in degrees, others in their
    own units.
    """
    absolute = np.abs(read.parameters - truth)
    relative = absolute / measures.network.spreads.numpy()

    def mean(absolute: Floats, names: tuple[str, ...]) -> Floats | None:
        columns = [PARAMETERS.index(name) for name in measures.readable(names)]
        if not columns:
            return None
        shown = ~np.isnan(absolute[:, columns])
        sums = np.where(shown, absolute[:, columns], 0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / np.where(shown.any(axis=1), shown.sum(axis=1), np.nan))

    found = {group: mean(relative, names) for group, names in GROUPS.items()}
    found |= {name: mean(absolute * (DEGREES if name in POSE else 1), (name,)) for name in SINGLE}
    return {name: values for name, values in found.items() if values is not None}


def decibel(made: Pixels, truth: Pixels, where: Mask) -> Floats:
    """Return the peak signal-to-noise ratio (n,) over a part of each picture, NaN where it is empty."""
    squared = ((made.astype(np.float64) - truth) ** 2).mean(axis=3)
    pixels = where.sum(axis=(1, 2))
    mean = np.where(where, squared, 0).sum(axis=(1, 2)) / np.maximum(pixels, 1)
    ratio = 10 * np.log10(255**2 / np.maximum(mean, 1e-9))
    return np.where(pixels > 0, np.minimum(ratio, MOST_DECIBEL), np.nan)


def to_others(embeddings: Floats, portraits: Floats) -> Floats:
    """Return the mean distance (n,) of each face to all portraits (n, k) but its own, NaN where n is 1."""
    away = 1 - embeddings @ portraits.T
    others = max(1, len(away) - 1)
    return np.where(len(away) > 1, (away.sum(axis=1) - np.diag(away)) / others, np.nan)


def identified(embeddings: Floats, gallery: Floats) -> Floats:
    """Return 1 where the nearest of the gallery (m, k) to face i is number i, else 0, as (n,)."""
    nearest = (embeddings @ gallery.T).argmax(axis=1)
    return np.asarray(nearest == np.arange(len(embeddings)), np.float64)


def compare(measures: Measures, yardstick: Yardstick, made: Pixels) -> dict[str, Floats]:
    """Return everything measured of n faces made of the yardstick's n portraits, (n,) each, by name."""
    read = measures.read(made)
    return {
        "identity_distance": distances(read.embeddings, yardstick.read.embeddings),
        "to_others": to_others(read.embeddings, yardstick.read.embeddings),
        "apart": to_others(read.embeddings, read.embeddings),
        "re_identified": identified(read.embeddings, yardstick.gallery),
        **errors(measures, read, yardstick.truth),
        "background": decibel(made, yardstick.portraits.pictures, yardstick.background),
    }


def compare_swap(
    measures: Measures, sources: Yardstick, drivings: Yardstick, truths_: Yardstick, made: Pixels
) -> dict[str, Floats]:
    """Return everything measured of n swapped faces, (n,) each, by name.

    `truths_` are the sources' identities in the drivings' attributes. The gallery is that of the sources.
    """
    read = measures.read(made)
    to_source = distances(read.embeddings, sources.read.embeddings)
    to_driving = distances(read.embeddings, drivings.read.embeddings)
    true = truths_.portraits.pictures
    return {
        "closer": np.asarray(to_source < to_driving, np.float64),
        "to_source": to_source,
        "to_driving": to_driving,
        "source_found": identified(read.embeddings, sources.gallery),
        **errors(measures, read, truths_.truth),
        "face": decibel(made, true, ~truths_.background),
        "background": decibel(made, true, truths_.background),
    }
