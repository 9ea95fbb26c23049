"""Quantiles of the families that are inverted by search: mixtures of normals, and counts.

Parameters are [rows, 1], or [rows, 1, k] for a mixture, and levels [n] rise; quantiles are [rows, n].

scipy's own inverses of the counts are not used (1.17): the negative binomial's takes more than a second
for one number far out in a long tail, and the Poisson's gives NaN from a rate of 1e12 on.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from inference_node.inversion import Attempt, Check, Floats, Indices, search

Parameters = Mapping[str, Floats]

BLOCK: Final = 16
"""Numbers between two checks where one may take up to 8 ms (an incomplete beta function of 1e16)."""
_ALIKE: Final = 2.0**-60
"""A step of so many standard deviations changes no probability by more than it is rounded by."""


def shares(p: Parameters) -> Floats:
    """Return the weights of categories or components, normalised as torch's `Categorical` does."""
    share: Floats = p["probs"] / p["probs"].sum(-1, keepdims=True)
    return share


def mixture_quantile(p: Parameters, levels: Floats, check: Check) -> Floats:
    """Return the quantiles of a mixture of normals, exact to the rounding of its probabilities.

    A quantile lies between the least and the greatest of the components' quantiles. Above the median it
    is where the chance of more has fallen far enough, as near 1 doubles are too coarse.
    """
    share, loc, scale = shares(p)[:, 0], p["loc"][:, 0], p["scale"][:, 0]
    score = special.ndtri(levels)
    ends = p["loc"] + p["scale"] * score[:, None]
    # A component without weight must not widen the search, nor its parameters matter.
    weighs = share > 0
    low = np.where(weighs[:, None], ends, np.inf).min(-1)
    high = np.where(weighs[:, None], ends, -np.inf).max(-1)
    mean = (share * loc).sum(-1, keepdims=True)
    deviation = np.sqrt((share * (scale**2 + (loc - mean) ** 2)).sum(-1, keepdims=True))
    least = np.where(weighs, scale, np.inf).min(-1, keepdims=True)
    side = np.where(levels > 0.5, -1.0, 1.0)
    chance = np.where(levels > 0.5, 1 - levels, levels)

    def attempt_of(cells: Indices) -> Attempt:
        rows, columns = np.divmod(cells, len(levels))
        weights, locs, scales = share[rows], loc[rows], scale[rows]
        sides, chances, scores = side[columns], chance[columns], -np.abs(score[columns])

        def attempt(x: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
            away = (x[:, None] - locs) / scales * sides[:, None]
            found = (weights * special.ndtr(away)).sum(-1)
            reached = np.where(sides > 0, found >= chances, found <= chances)
            return reached, sides * (special.ndtri(found) - scores)

        return attempt

    return search(
        attempt_of,
        low.ravel(),
        high.ravel(),
        guess=(mean + deviation * score).ravel(),
        spread=np.broadcast_to(deviation, low.shape).ravel(),
        resolution=np.broadcast_to(least * _ALIKE, low.shape).ravel(),
        check=check,
    ).reshape(low.shape)


def poisson_quantile(p: Parameters, levels: Floats, check: Check) -> Floats:
    """Return the least counts whose cumulative probabilities reach the levels."""
    deviation = np.sqrt(p["rate"])
    guess = _cornish_fisher(p["rate"], deviation, 1 / deviation, levels)
    return _counts(
        lambda k, rate: special.gammaincc(k + 1, rate), (p["rate"],), levels, guess, deviation, check
    )


def negative_binomial_quantile(p: Parameters, levels: Floats, check: Check) -> Floats:
    """Return the least counts of successes before `total_count` failures that reach the levels."""
    count, success, failure = p["total_count"], p["probs"], 1 - p["probs"]
    mean = count * success / failure
    deviation = np.sqrt(mean / failure)
    guess = _cornish_fisher(mean, deviation, (1 + success) / np.sqrt(success * count), levels)
    return _counts(
        lambda k, count, failure: special.betainc(count, k + 1, failure),
        (count, failure),
        levels,
        guess,
        deviation,
        check,
    )


def _cornish_fisher(mean: Floats, deviation: Floats, skewness: Floats, levels: Floats) -> Floats:
    """Return about where the quantiles are, by the first terms of Cornish and Fisher (1938)."""
    score = special.ndtri(levels)
    return np.asarray(mean + deviation * (score + np.minimum(skewness, 2) * (score**2 - 1) / 6))


def _counts(
    reaches: Callable[..., Floats],
    parameters: tuple[Floats, ...],
    levels: Floats,
    guess: Floats,
    deviation: Floats,
    check: Check,
) -> Floats:
    """Search the least counts with `reaches(count, *parameters)` at least the levels; NaN if it is."""
    score = special.ndtri(levels)
    unknown = np.zeros(guess.size, np.bool_)

    def attempt_of(cells: Indices) -> Attempt:
        rows, columns = np.divmod(cells, len(levels))
        own = [value[rows, 0] for value in parameters]
        chances, scores = levels[columns], score[columns]

        def attempt(k: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
            found = np.empty_like(k)
            for start in range(0, len(k), BLOCK):
                part = slice(start, start + BLOCK)
                check()
                found[part] = reaches(k[part], *(value[part] for value in own))
            unknown[cells] |= np.isnan(found)
            return found >= chances, special.ndtri(found) - scores

        return attempt

    counts = search(
        attempt_of,
        np.full(guess.size, -1.0),
        np.full(guess.size, np.inf),
        guess=np.maximum(guess, 0).ravel(),
        spread=np.broadcast_to(deviation, guess.shape).ravel(),
        whole=True,
        check=check,
    )
    return np.where(unknown, np.nan, counts).reshape(guess.shape)
