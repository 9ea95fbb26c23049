"""Quantiles and moments against scipy.stats and torch.distributions, which know nothing of ours."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import distributions as td

from inference_node import distributions as ours

LEVELS = np.array([0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999])

_real = st.floats(-100, 100)
_scale = st.floats(0.01, 50)
_shape = st.floats(0.3, 50)
_inner = st.floats(0.01, 0.99)
_weights = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
_locs = st.lists(_real, min_size=3, max_size=3)
_scales = st.lists(_scale, min_size=3, max_size=3)

# By family: what its parameters may be, the same distribution in scipy and in torch.
CASES = {
    "normal": (
        {"loc": _real, "scale": _scale},
        lambda p: stats.norm(p["loc"], p["scale"]),
        lambda p: td.Normal(p["loc"], p["scale"]),
    ),
    "log_normal": (
        {"loc": st.floats(-3, 3), "scale": st.floats(0.05, 1.5)},
        lambda p: stats.lognorm(p["scale"], scale=np.exp(p["loc"])),
        lambda p: td.LogNormal(p["loc"], p["scale"]),
    ),
    "student_t": (
        {"df": st.floats(2.1, 60), "loc": _real, "scale": _scale},
        lambda p: stats.t(p["df"], p["loc"], p["scale"]),
        lambda p: td.StudentT(p["df"], p["loc"], p["scale"]),
    ),
    "gamma": (
        {"concentration": _shape, "rate": _scale},
        lambda p: stats.gamma(p["concentration"], scale=1 / p["rate"]),
        lambda p: td.Gamma(p["concentration"], p["rate"]),
    ),
    "beta": (
        {"concentration1": _shape, "concentration0": _shape},
        lambda p: stats.beta(p["concentration1"], p["concentration0"]),
        lambda p: td.Beta(p["concentration1"], p["concentration0"]),
    ),
    "poisson": (
        {"rate": st.floats(0, 200)},
        lambda p: stats.poisson(p["rate"]),
        lambda p: td.Poisson(p["rate"]),
    ),
    "negative_binomial": (
        {"total_count": st.floats(0.5, 40), "probs": _inner},
        lambda p: stats.nbinom(p["total_count"], 1 - p["probs"]),
        lambda p: td.NegativeBinomial(p["total_count"], p["probs"]),
    ),
    "bernoulli": (
        {"probs": _inner},
        lambda p: stats.bernoulli(p["probs"]),
        lambda p: td.Bernoulli(p["probs"]),
    ),
    "categorical": (
        {"probs": _weights},
        lambda p: stats.rv_discrete(values=(range(3), p["probs"] / p["probs"].sum())),
        None,
    ),
    "mixture_normal": (
        {"probs": _weights, "loc": _locs, "scale": _scales},
        None,
        lambda p: td.MixtureSameFamily(td.Categorical(p["probs"]), td.Normal(p["loc"], p["scale"])),
    ),
}
EXACT = ("poisson", "negative_binomial", "bernoulli", "categorical")


def arrays(drawn):
    return {name: np.array(value, np.float64) for name, value in drawn.items()}


def test_every_family_is_tried():
    assert CASES.keys() == ours.FAMILIES.keys()


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_quantiles_and_moments_are_those_of_scipy_and_torch(name, data):
    kinds, in_scipy, in_torch = CASES[name]
    p = arrays({key: data.draw(kind, label=key) for key, kind in kinds.items()})
    family = ours.FAMILIES[name]
    found = ours.quantiles(family, p, LEVELS)
    assert found.shape == LEVELS.shape
    if in_scipy is not None:
        expected = in_scipy(p).ppf(LEVELS)
        np.testing.assert_allclose(found, expected, rtol=0 if name in EXACT else 1e-9, atol=1e-300)
    else:
        # By definition: the cumulative probability at the quantile is the level.
        reached = in_torch({key: torch.tensor(value) for key, value in p.items()}).cdf(
            torch.tensor(found)
        )
        np.testing.assert_allclose(reached, LEVELS, atol=1e-9)
    moments = ours.mean(family, p), ours.variance(family, p)
    if in_torch is not None:
        other = in_torch({key: torch.tensor(value) for key, value in p.items()})
        expected_moments = other.mean.item(), other.variance.item()
    else:
        other = in_scipy(p)
        expected_moments = other.mean(), other.var()
    np.testing.assert_allclose(moments, expected_moments, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_a_higher_level_never_has_a_lower_quantile_in_whatever_order_they_are_asked(name, data):
    kinds, _, _ = CASES[name]
    rows = data.draw(st.integers(1, 3))
    drawn = [{key: data.draw(kind) for key, kind in kinds.items()} for _ in range(rows)]
    p = {key: np.array([row[key] for row in drawn], np.float64) for key in kinds}
    levels = np.array(data.draw(st.lists(st.floats(1e-12, 1 - 1e-12), min_size=2, max_size=9)))
    found = ours.quantiles(ours.FAMILIES[name], p, levels)
    assert found.shape == (rows, len(levels))
    assert np.all(np.diff(found[:, np.argsort(levels)], axis=-1) >= 0)
    # A row's answer is its own: no other row changes it.
    for row in range(rows):
        alone = ours.quantiles(
            ours.FAMILIES[name], {key: value[row] for key, value in p.items()}, levels
        )
        np.testing.assert_array_equal(alone, found[row])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("normal", {"loc": 0.0, "scale": 0.0}),
        ("normal", {"loc": np.nan, "scale": 1.0}),
        ("normal", {"loc": 0.0, "scale": -1.0}),
        ("log_normal", {"loc": np.inf, "scale": 1.0}),
        ("student_t", {"df": 0.0, "loc": 0.0, "scale": 1.0}),
        ("gamma", {"concentration": -1.0, "rate": 1.0}),
        ("beta", {"concentration1": 1.0, "concentration0": np.inf}),
        ("poisson", {"rate": -0.1}),
        ("negative_binomial", {"total_count": 2.0, "probs": 1.0}),
        ("bernoulli", {"probs": 1.01}),
        ("categorical", {"probs": [0.5, -0.1, 0.6]}),
        ("categorical", {"probs": [0.0, 0.0, 0.0]}),
        ("mixture_normal", {"probs": [1.0, 1.0], "loc": [0.0, 0.0], "scale": [1.0, 0.0]}),
    ],
)
def test_parameters_outside_of_the_domain_give_nan_for_everything_and_never_a_number(name, bad):
    family, p = ours.FAMILIES[name], arrays(bad)
    assert np.isnan(ours.quantiles(family, p, LEVELS)).all()
    assert np.isnan(ours.mean(family, p))
    assert np.isnan(ours.variance(family, p))


def test_a_distribution_of_heavy_tails_has_the_moments_that_exist():
    family = ours.FAMILIES["student_t"]
    cauchy = arrays({"df": 1.0, "loc": 3.0, "scale": 2.0})
    assert np.isnan(ours.mean(family, cauchy))
    assert np.isnan(ours.variance(family, cauchy))
    heavy = arrays({"df": 1.5, "loc": 3.0, "scale": 2.0})
    assert ours.mean(family, heavy) == 3
    assert ours.variance(family, heavy) == np.inf


def test_a_mixture_of_equal_components_is_the_component():
    p = arrays({"probs": [0.2, 0.8], "loc": [5.0, 5.0], "scale": [2.0, 2.0]})
    found = ours.quantiles(ours.FAMILIES["mixture_normal"], p, LEVELS)
    np.testing.assert_allclose(found, stats.norm(5, 2).ppf(LEVELS), rtol=1e-12)


def test_quantiles_are_those_of_many_draws():
    generator = np.random.default_rng(5)
    p = arrays({"probs": [0.3, 0.7], "loc": [-2.0, 4.0], "scale": [0.5, 1.5]})
    which = generator.random(400_000) < 0.3
    draws = np.where(which, generator.normal(-2, 0.5, which.size), generator.normal(4, 1.5, which.size))
    levels = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
    found = ours.quantiles(ours.FAMILIES["mixture_normal"], p, levels)
    np.testing.assert_allclose(np.quantile(draws, levels), found, atol=0.03)
