"""What a device says of a model on its own rows: whole numbers that add up over devices.

    [rows, tp, fp, tn, fn, squared error, positives by score bin ..., negatives by score bin ...]

The squared error of a score is counted in whole units of 2^-20. Bins are even in the scores' log-odds
from -16 to 16; beyond, the outermost bin counts. The coordinator's `federated/statistics.py` says the
same.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside_client.errors import ModelFailed, StateError

SQUARED_ERROR_UNITS: Final = 1 << 20
LOG_ODDS_MAX: Final = 16.0

_SCALARS: Final = 6

Counts = npt.NDArray[np.int64]


def nothing(bins: int) -> Counts:
    """Return what a device with no rows says."""
    return np.zeros(_SCALARS + 2 * bins, dtype=np.int64)


def count(scores: npt.NDArray[Any], labels: Sequence[int], threshold: float, bins: int) -> Counts:
    """Return the counts of scores in [0, 1], float [n], against labels 0 or 1.

    Raises:
        ModelFailed: if a score is no probability.
        StateError: if a label is neither 0 nor 1.
    """
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ModelFailed("the model's scores are not probabilities")
    if not set(labels) <= {0, 1}:
        raise StateError("a label on this device is neither 0 nor 1")
    truth = np.asarray(labels, dtype=bool)
    said = scores >= threshold
    exact = scores.astype(np.float64)
    errors = np.rint((exact - truth) ** 2 * SQUARED_ERROR_UNITS).astype(np.int64)
    index = _bins_of(exact, bins)
    scalars = [
        len(truth),
        int((said & truth).sum()),
        int((said & ~truth).sum()),
        int((~said & ~truth).sum()),
        int((~said & truth).sum()),
        int(errors.sum()),
    ]
    return np.concatenate(
        [
            np.array(scalars, dtype=np.int64),
            np.bincount(index[truth], minlength=bins),
            np.bincount(index[~truth], minlength=bins),
        ]
    ).astype(np.int64)


def _bins_of(scores: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    inside = np.clip(scores, 1e-12, 1 - 1e-12)
    odds = np.log(inside) - np.log1p(-inside)
    return np.clip(((odds / LOG_ODDS_MAX + 1) / 2 * bins).astype(np.int64), 0, bins - 1)
