"""Sufficient statistics of a binary classifier, and the metrics that follow from their sums.

A device's reply is one int64 vector, so that replies can be added (and, later, masked and noised)
without looking into them:

    [rows, tp, fp, tn, fn, positives by score bin ..., negatives by score bin ...]

Scores lie in [0, 1] and are binned by their log-odds, evenly from -16 to 16 with what lies beyond in
the outermost bins: a confident model's scores crowd near 0 and 1, where even bins would tell few apart.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from coordinator.errors import JobError

BINS: Final = 1024
ROWS_MAX: Final = 10_000_000

_COUNTS: Final = 5

Vector = npt.NDArray[np.int64]


class Metrics(Struct, frozen=True, kw_only=True):
    """What the sums say of a classifier; None where a class is missing from the cohort."""

    rows: int
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    auroc: float | None


def length(bins: int = BINS) -> int:
    """Return the length of a reply."""
    return _COUNTS + 2 * bins


def check(vector: npt.NDArray[np.generic], bins: int = BINS) -> Vector:
    """Return a device's reply as int64, if it can be one.

    Raises:
        JobError: if its type, length or counts are impossible; the message holds no count.
    """
    if vector.dtype != np.int64 or vector.shape != (length(bins),):
        raise JobError("a reply is not an int64 vector of the job's length")
    checked: Vector = vector.astype(np.int64)
    rows, tp, fp, tn, fn = checked[:_COUNTS].tolist()
    positives, negatives = checked[_COUNTS : _COUNTS + bins], checked[_COUNTS + bins :]
    if (checked < 0).any() or rows > ROWS_MAX:
        raise JobError("a reply has a negative or too large count")
    if tp + fn != int(positives.sum()) or fp + tn != int(negatives.sum()) or tp + fp + tn + fn != rows:
        raise JobError("a reply's counts contradict each other")
    return checked


def add(vectors: Iterable[Vector], bins: int = BINS) -> Vector:
    """Return the sum of replies."""
    total = np.zeros(length(bins), dtype=np.int64)
    for vector in vectors:
        total += vector
    return total


def metrics(total: Vector, bins: int = BINS) -> Metrics:
    """Return the metrics that a sum of replies gives.

    AUROC is the Mann-Whitney statistic over score bins; ties count half, so its error is at most half
    the weight of positive and negative pairs that share a bin.

    Raises:
        JobError: if there are no rows at all.
    """
    rows, tp, fp, tn, fn = total[:_COUNTS].tolist()
    if rows == 0:
        raise JobError("the cohort holds no rows")
    positives, negatives = total[_COUNTS : _COUNTS + bins], total[_COUNTS + bins :]
    pairs = int(positives.sum()) * int(negatives.sum())
    below = np.cumsum(negatives) - negatives
    wins = float((positives * below).sum()) + 0.5 * float((positives * negatives).sum())
    return Metrics(
        rows=rows,
        accuracy=(tp + tn) / rows,
        sensitivity=tp / (tp + fn) if tp + fn else None,
        specificity=tn / (tn + fp) if tn + fp else None,
        auroc=wins / pairs if pairs else None,
    )
