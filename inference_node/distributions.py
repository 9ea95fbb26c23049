"""Families of distributions: their quantiles, means and variances, computed for whole arrays at once.

The families and the names of their parameters are those of `torch.distributions`, so that what is
declared is what a network was trained with. `Categorical` and `Bernoulli` count from 0. A quantile of a
discrete family is the smallest value whose cumulative probability reaches the level.

A place whose parameters are outside of the family's domain (a scale of 0, a probability of 2, NaN) has
NaN for everything.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy import special, stats

Floats = npt.NDArray[np.float64]
Parameters = Mapping[str, Floats]
Domain = Callable[[Floats], npt.NDArray[np.bool_]]

_HALVINGS_MAX: Final = 2100
"""More than it takes from the whole range of a double down to neighbours."""


class Family(Struct, frozen=True, kw_only=True):
    """One family; parameters in `vectors` have an axis of categories or components as their last.

    `quantile` takes parameters with one more axis than the distribution, of size 1, for levels to
    spread along; `mean` and `variance` take them without.
    """

    domains: Mapping[str, Domain]
    quantile: Callable[[Parameters, Floats], Floats]
    mean: Callable[[Parameters], Floats]
    variance: Callable[[Parameters], Floats]
    vectors: bool = False


def finite(x: Floats) -> npt.NDArray[np.bool_]:
    """Say where a number is one."""
    return np.isfinite(x)


def _positive(x: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(x) & (x > 0)


def _not_negative(x: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(x) & (x >= 0)


def _probability(x: Floats) -> npt.NDArray[np.bool_]:
    return (x >= 0) & (x <= 1)


def _below_one(x: Floats) -> npt.NDArray[np.bool_]:
    return (x >= 0) & (x < 1)


def quantiles(family: Family, parameters: Parameters, levels: Floats) -> Floats:
    """Return the quantiles at `levels` [n], float64 [*shape, n]; a higher level never has a lower one.

    `parameters` have the distribution's shape (with `vectors`, and one axis more).
    """
    order = np.argsort(levels, kind="stable")
    axis = -2 if family.vectors else -1
    spread = {name: np.expand_dims(value, axis) for name, value in parameters.items()}
    with np.errstate(all="ignore"):
        values = family.quantile(spread, levels[order])
        # Rounding of an inverse may cross by a unit in the last place.
        values = np.maximum.accumulate(values, axis=-1)
        values = np.where(_usable(family, parameters)[..., None], values, np.nan)
    placed = np.empty_like(values)
    placed[..., order] = values
    return placed


def mean(family: Family, parameters: Parameters) -> Floats:
    """Return the mean, float64 of the distribution's shape; NaN where there is none."""
    with np.errstate(all="ignore"):
        return np.where(_usable(family, parameters), family.mean(parameters), np.nan)


def variance(family: Family, parameters: Parameters) -> Floats:
    """Return the variance, float64 of the distribution's shape; it may be infinite."""
    with np.errstate(all="ignore"):
        return np.where(_usable(family, parameters), family.variance(parameters), np.nan)


def probabilities(logits: Floats, *, vectors: bool) -> Floats:
    """Return the probabilities that `logits` stand for: softmax along the last axis, or sigmoid."""
    with np.errstate(all="ignore"):
        return np.asarray(
            special.softmax(logits, axis=-1) if vectors else special.expit(logits), np.float64
        )


def _usable(family: Family, parameters: Parameters) -> npt.NDArray[np.bool_]:
    usable: npt.NDArray[np.bool_] = np.array(True)
    for name, inside in family.domains.items():
        mask = inside(parameters[name])
        if family.vectors:
            mask = np.asarray(mask.all(-1))
            if name == "probs":
                mask = mask & (parameters[name].sum(-1) > 0)
        usable = np.asarray(usable & mask)
    return usable


def _shares(p: Parameters) -> Floats:
    # Normalised, as torch.distributions.Categorical does.
    share: Floats = p["probs"] / p["probs"].sum(-1, keepdims=True)
    return share


def _categorical_quantile(p: Parameters, levels: Floats) -> Floats:
    reached = np.cumsum(_shares(p), axis=-1)
    below: Floats = (reached < levels[:, None]).sum(-1).astype(np.float64)
    # The last sum may miss 1 by its rounding.
    return np.asarray(np.minimum(below, p["probs"].shape[-1] - 1))


def _categorical_mean(p: Parameters) -> Floats:
    expected: Floats = (_shares(p) * np.arange(p["probs"].shape[-1])).sum(-1)
    return expected


def _categorical_variance(p: Parameters) -> Floats:
    away = np.arange(p["probs"].shape[-1]) - _categorical_mean(p)[..., None]
    squares: Floats = (_shares(p) * away**2).sum(-1)
    return squares


def _mixture_quantile(p: Parameters, levels: Floats) -> Floats:
    """Invert the mixture's cumulative distribution by halving, down to neighbouring doubles.

    The quantile of a mixture lies between the least and the greatest of its components' quantiles.
    """
    share, loc, scale = _shares(p), p["loc"], p["scale"]
    ends = loc + scale * special.ndtri(levels)[:, None]
    # A component without weight must not widen the search, nor its parameters matter.
    low = np.where(share > 0, ends, np.inf).min(-1)
    high = np.where(share > 0, ends, -np.inf).max(-1)
    for _ in range(_HALVINGS_MAX):
        middle = low + (high - low) / 2
        open_ = (low < middle) & (middle < high)
        if not open_.any():
            break
        reached = (share * special.ndtr((middle[..., None] - loc) / scale)).sum(-1) >= levels
        high = np.where(open_ & reached, middle, high)
        low = np.where(open_ & ~reached, middle, low)
    return np.asarray(high, np.float64)


def _mixture_mean(p: Parameters) -> Floats:
    expected: Floats = (_shares(p) * p["loc"]).sum(-1)
    return expected


def _mixture_variance(p: Parameters) -> Floats:
    away = p["loc"] - _mixture_mean(p)[..., None]
    squares: Floats = (_shares(p) * (p["scale"] ** 2 + away**2)).sum(-1)
    return squares


def _student_variance(p: Parameters) -> Floats:
    df, scale = p["df"], p["scale"]
    infinite = np.where(df > 1, np.inf, np.nan)
    return np.where(df > 2, scale**2 * df / (df - 2), infinite)


def _beta_variance(p: Parameters) -> Floats:
    a, b = p["concentration1"], p["concentration0"]
    return a * b / ((a + b) ** 2 * (a + b + 1))


def _negative_binomial_mean(p: Parameters) -> Floats:
    return p["total_count"] * p["probs"] / (1 - p["probs"])


FAMILIES: Final[Mapping[str, Family]] = {
    "normal": Family(
        domains={"loc": finite, "scale": _positive},
        quantile=lambda p, q: p["loc"] + p["scale"] * special.ndtri(q),
        mean=lambda p: p["loc"],
        variance=lambda p: p["scale"] ** 2,
    ),
    "log_normal": Family(
        domains={"loc": finite, "scale": _positive},
        quantile=lambda p, q: np.exp(p["loc"] + p["scale"] * special.ndtri(q)),
        mean=lambda p: np.exp(p["loc"] + p["scale"] ** 2 / 2),
        variance=lambda p: np.expm1(p["scale"] ** 2) * np.exp(2 * p["loc"] + p["scale"] ** 2),
    ),
    "student_t": Family(
        domains={"df": _positive, "loc": finite, "scale": _positive},
        quantile=lambda p, q: p["loc"] + p["scale"] * special.stdtrit(p["df"], q),
        mean=lambda p: np.where(p["df"] > 1, p["loc"], np.nan),
        variance=_student_variance,
    ),
    "gamma": Family(
        domains={"concentration": _positive, "rate": _positive},
        quantile=lambda p, q: special.gammaincinv(p["concentration"], q) / p["rate"],
        mean=lambda p: p["concentration"] / p["rate"],
        variance=lambda p: p["concentration"] / p["rate"] ** 2,
    ),
    "beta": Family(
        domains={"concentration1": _positive, "concentration0": _positive},
        quantile=lambda p, q: special.betaincinv(p["concentration1"], p["concentration0"], q),
        mean=lambda p: p["concentration1"] / (p["concentration1"] + p["concentration0"]),
        variance=_beta_variance,
    ),
    "poisson": Family(
        domains={"rate": _not_negative},
        quantile=lambda p, q: stats.poisson.ppf(q, p["rate"]),
        mean=lambda p: p["rate"],
        variance=lambda p: p["rate"],
    ),
    "negative_binomial": Family(
        # torch counts the successes before `total_count` failures, scipy the failures.
        domains={"total_count": _positive, "probs": _below_one},
        quantile=lambda p, q: stats.nbinom.ppf(q, p["total_count"], 1 - p["probs"]),
        mean=_negative_binomial_mean,
        variance=lambda p: _negative_binomial_mean(p) / (1 - p["probs"]),
    ),
    "bernoulli": Family(
        domains={"probs": _probability},
        quantile=lambda p, q: (q > 1 - p["probs"]).astype(np.float64),
        mean=lambda p: p["probs"],
        variance=lambda p: p["probs"] * (1 - p["probs"]),
    ),
    "categorical": Family(
        domains={"probs": _not_negative},
        quantile=_categorical_quantile,
        mean=_categorical_mean,
        variance=_categorical_variance,
        vectors=True,
    ),
    "mixture_normal": Family(
        domains={"probs": _not_negative, "loc": finite, "scale": _positive},
        quantile=_mixture_quantile,
        mean=_mixture_mean,
        variance=_mixture_variance,
        vectors=True,
    ),
}
