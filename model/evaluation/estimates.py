"""Means with their confidence intervals, by the bootstrap: every figure of the report is one.

What is resampled is subjects, not results: several seeds of one subject are no independent observations.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

RESAMPLINGS = 2000
CONFIDENCE = 0.95

Values = NDArray[np.floating[Any]] | NDArray[np.bool_]


class Estimate(BaseModel):
    """A mean over `count` subjects and the 95 % interval of it, from `low` to `high`."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    count: int


def estimate(values: Values, seed: int = 0) -> Estimate | None:
    """Return the mean of values (subjects,) or (subjects, seeds), NaN being left out; None where none is
    left.

    The interval is the percentile bootstrap's over subjects (Efron and Tibshirani, 1993, chapter 13).
    """
    by_subject = np.asarray(values, np.float64).reshape(len(values), -1)
    known = ~np.isnan(by_subject)
    sums, counts = np.where(known, by_subject, 0).sum(axis=1), known.sum(axis=1)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if not len(sums):
        return None
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLINGS, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Estimate(value=float(sums.sum() / counts.sum()), low=float(low), high=float(high), count=len(sums))
