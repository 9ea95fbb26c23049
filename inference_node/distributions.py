"""Families of distributions: their quantiles, means and variances, computed for whole arrays at once.

The families and the names of their parameters are those of `torch.distributions`, so that what is
declared is what a network was trained with. `Categorical` and `Bernoulli` count from 0. A quantile of a
discrete family is the smallest value whose cumulative probability reaches the level.

A place whose parameters are outside of the family's domain (a scale of 0, a probability of 2, NaN) has
NaN for everything.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy import special

from inference_node.inversion import Check, Floats
from inference_node.searched import (
    Parameters,
    mixture_quantile,
    negative_binomial_quantile,
    poisson_quantile,
    shares,
)

Domain = Callable[[Floats], npt.NDArray[np.bool_]]

_PIECE: Final = 1 << 14
"""Numbers computed at a time: their arrays stay in a core's cache."""


class Family(Struct, frozen=True, kw_only=True):
    """One family; parameters in `vectors` have an axis of categories or components as their last.

    `quantile` takes parameters [rows, 1] (with `vectors` [rows, 1, k]) and levels [n], which rise, and
    returns [rows, n]; `mean` and `variance` take parameters as the distribution has them.

    `cost_ns` is what one quantile (with `vectors`, one category or component of it) takes: the slowest
    that was measured on a core of an AMD EPYC with parameters from 1e-6 to 1e6 (scales of a mixture
    from 1e-300 to 1e290). Beyond, scipy's functions of `student_t`, `gamma`, `beta` and
    `negative_binomial` take up to a thousand times as long, so no more than `piece` numbers are
    computed between two checks.
    """

    domains: Mapping[str, Domain]
    cost_ns: int
    quantile: Callable[[Parameters, Floats, Check], Floats]
    mean: Callable[[Parameters], Floats]
    variance: Callable[[Parameters], Floats]
    piece: int = _PIECE
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


def _go_on() -> None:
    """Let a computation that nobody limits take its time."""


def quantiles(family: Family, parameters: Parameters, levels: Floats, check: Check = _go_on) -> Floats:
    """Return the quantiles at `levels` [n], float64 [*shape, n]; a higher level never has a lower one.

    `parameters` have the distribution's shape (with `vectors`, and one axis more). `check` is called
    every few milliseconds, and what it raises is raised.
    """
    order = np.argsort(levels, kind="stable")
    rising = levels[order]
    usable = _usable(family, parameters)
    shape = np.broadcast_shapes(*(value.shape for value in parameters.values()))
    ends = shape[-1:] if family.vectors else ()
    # Rows that have no quantile are not searched for one.
    flat = {
        name: np.broadcast_to(value, shape).reshape(-1, *ends)[usable.ravel()]
        for name, value in parameters.items()
    }
    found = np.empty((np.count_nonzero(usable), len(levels)))
    with np.errstate(all="ignore"):
        for rows, columns in pieces(len(found), len(levels), family.piece // max((1, *ends))):
            check()
            spread = {name: value[rows, None] for name, value in flat.items()}
            found[rows, columns] = family.quantile(spread, rising[columns], check)
    # Rounding of an inverse may cross by a unit in the last place.
    found = np.maximum.accumulate(found, axis=-1)
    values = np.full((*usable.shape, len(levels)), np.nan)
    values[usable, :] = found
    placed = np.empty_like(values)
    placed[..., order] = values
    return placed


def pieces(rows: int, columns: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield parts of a table, as its rows and columns, of at most `size` places (1 at least) each."""
    width = min(max(size, 1), max(columns, 1))
    height = max(size // width, 1)
    for row in range(0, rows, height):
        for column in range(0, columns, width):
            yield slice(row, row + height), slice(column, column + width)


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


def _categorical_quantile(p: Parameters, levels: Floats, _: Check) -> Floats:
    reached = np.cumsum(shares(p), axis=-1)
    below: Floats = (reached < levels[:, None]).sum(-1).astype(np.float64)
    # The last sum may miss 1 by its rounding.
    return np.asarray(np.minimum(below, p["probs"].shape[-1] - 1))


def _categorical_mean(p: Parameters) -> Floats:
    expected: Floats = (shares(p) * np.arange(p["probs"].shape[-1])).sum(-1)
    return expected


def _categorical_variance(p: Parameters) -> Floats:
    away = np.arange(p["probs"].shape[-1]) - _categorical_mean(p)[..., None]
    squares: Floats = (shares(p) * away**2).sum(-1)
    return squares


def _mixture_mean(p: Parameters) -> Floats:
    expected: Floats = (shares(p) * p["loc"]).sum(-1)
    return expected


def _mixture_variance(p: Parameters) -> Floats:
    away = p["loc"] - _mixture_mean(p)[..., None]
    squares: Floats = (shares(p) * (p["scale"] ** 2 + away**2)).sum(-1)
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


def _negative_binomial_variance(p: Parameters) -> Floats:
    return _negative_binomial_mean(p) / (1 - p["probs"])


FAMILIES: Final[Mapping[str, Family]] = {
    "normal": Family(
        domains={"loc": finite, "scale": _positive},
        cost_ns=20,
        quantile=lambda p, q, _: p["loc"] + p["scale"] * special.ndtri(q),
        mean=lambda p: p["loc"],
        variance=lambda p: p["scale"] ** 2,
    ),
    "log_normal": Family(
        domains={"loc": finite, "scale": _positive},
        cost_ns=20,
        quantile=lambda p, q, _: np.exp(p["loc"] + p["scale"] * special.ndtri(q)),
        mean=lambda p: np.exp(p["loc"] + p["scale"] ** 2 / 2),
        variance=lambda p: np.expm1(p["scale"] ** 2) * np.exp(2 * p["loc"] + p["scale"] ** 2),
    ),
    "student_t": Family(
        domains={"df": _positive, "loc": finite, "scale": _positive},
        cost_ns=450,
        piece=128,
        quantile=lambda p, q, _: p["loc"] + p["scale"] * special.stdtrit(p["df"], q),
        mean=lambda p: np.where(p["df"] > 1, p["loc"], np.nan),
        variance=_student_variance,
    ),
    "gamma": Family(
        domains={"concentration": _positive, "rate": _positive},
        cost_ns=550,
        piece=256,
        quantile=lambda p, q, _: special.gammaincinv(p["concentration"], q) / p["rate"],
        mean=lambda p: p["concentration"] / p["rate"],
        variance=lambda p: p["concentration"] / p["rate"] ** 2,
    ),
    "beta": Family(
        domains={"concentration1": _positive, "concentration0": _positive},
        cost_ns=2_700,
        piece=16,
        quantile=lambda p, q, _: special.betaincinv(p["concentration1"], p["concentration0"], q),
        mean=lambda p: p["concentration1"] / (p["concentration1"] + p["concentration0"]),
        variance=_beta_variance,
    ),
    "poisson": Family(
        domains={"rate": _not_negative},
        cost_ns=900,
        quantile=poisson_quantile,
        mean=lambda p: p["rate"],
        variance=lambda p: p["rate"],
    ),
    "negative_binomial": Family(
        # torch counts the successes before `total_count` failures, scipy the failures.
        domains={"total_count": _positive, "probs": _below_one},
        cost_ns=6_000,
        quantile=negative_binomial_quantile,
        mean=_negative_binomial_mean,
        variance=_negative_binomial_variance,
    ),
    "bernoulli": Family(
        domains={"probs": _probability},
        cost_ns=20,
        quantile=lambda p, q, _: (q > 1 - p["probs"]).astype(np.float64),
        mean=lambda p: p["probs"],
        variance=lambda p: p["probs"] * (1 - p["probs"]),
    ),
    "categorical": Family(
        domains={"probs": _not_negative},
        cost_ns=20,
        quantile=_categorical_quantile,
        mean=_categorical_mean,
        variance=_categorical_variance,
        vectors=True,
    ),
    "mixture_normal": Family(
        domains={"probs": _not_negative, "loc": finite, "scale": _positive},
        cost_ns=1_600,
        quantile=mixture_quantile,
        mean=_mixture_mean,
        variance=_mixture_variance,
        vectors=True,
    ),
}
