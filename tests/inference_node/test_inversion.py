"""The search that inverts distribution functions: exact for every double, in bounded steps."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special

from inference_node import distributions
from inference_node.inversion import GUESSES, HALVINGS, search

MIXTURE = distributions.FAMILIES["mixture_normal"]


class Steps:
    """Counts how often a computation asks whether to go on."""

    def __init__(self):
        self.taken = 0

    def __call__(self):
        self.taken += 1


def found_by(thresholds, *, whole=False, misled=math.inf):
    """Search each threshold itself, with nothing to guess by, or with what misleads the guesses."""
    targets, steps = np.array(thresholds, np.float64), Steps()

    def attempt_of(cells):
        own = targets[cells]

        def attempt(x):
            return x >= own, np.where(x >= own, misled, -misled)

        return attempt

    ends = np.full(len(targets), np.inf)
    guess = np.zeros(len(targets))
    found = search(attempt_of, -ends, ends, guess=guess, spread=guess + 1, whole=whole, check=steps)
    assert steps.taken <= GUESSES + HALVINGS
    return found


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), st.sampled_from([math.inf, 1e-3]))
@example([0.0, -0.0, 5e-324, -5e-324], math.inf)
@example([math.inf, -1.7976931348623157e308, 1.7976931348623157e308], 1.0)
def test_every_double_is_found_exactly_however_wrong_the_guesses_are(thresholds, misled):
    # Below the least finite double nothing is tried: its ends are neighbours.
    expected = np.maximum(thresholds, -np.finfo(np.float64).max)
    np.testing.assert_array_equal(found_by(thresholds, misled=misled), expected)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5))
def test_among_whole_numbers_the_next_is_found(thresholds):
    np.testing.assert_array_equal(found_by(thresholds, whole=True), np.ceil(thresholds))


_magnitude = st.floats(-300, 290).map(lambda power: 10.0**power)
_scale = st.one_of(_magnitude, st.floats(0.01, 50))
_loc = st.one_of(_magnitude, _magnitude.map(lambda x: -x), st.floats(-100, 100))
_level = st.one_of(st.floats(0.001, 0.999), st.floats(-250, -1).map(lambda power: 10.0**power))


def chance(p, x):
    """The mixture's probability of at most `x`, and of more, to 60 digits."""
    with mpmath.workdps(60):
        shares = [mpmath.mpf(float(share)) for share in p["probs"]]
        away = [
            (mpmath.mpf(float(x)) - mpmath.mpf(float(loc))) / mpmath.mpf(float(scale))
            for loc, scale in zip(p["loc"], p["scale"], strict=True)
        ]
        return tuple(
            # mpmath overflows where next to nothing is left.
            sum(
                share * mpmath.ncdf(max(min(side * z, 10**6), -(10**6)))
                for share, z in zip(shares, away, strict=True)
            )
            / sum(shares)
            for side in (1, -1)
        )


def check_quantile(p, level, x):
    """See that `x` has the level, but for a step of it, or of its chance, in the last digits."""
    # A double next to the quantile may be many of a narrow component's deviations away.
    step = 4 * np.spacing(np.abs(x))
    least = float(np.min(np.array(p["scale"])))
    before, after = x - step - 1e-14 * least, x + step + 1e-14 * least
    tolerance = mpmath.mpf(2) ** -44
    if level <= 0.5:
        assert chance(p, before)[0] <= level * (1 + tolerance)
        assert chance(p, after)[0] >= level * (1 - tolerance)
    else:
        rest = mpmath.mpf(1) - mpmath.mpf(level)
        assert chance(p, before)[1] >= rest * (1 - tolerance)
        assert chance(p, after)[1] <= rest * (1 + tolerance)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), _loc, _scale), min_size=1, max_size=4),
    st.lists(_level, min_size=1, max_size=3),
)
def test_a_mixture_is_inverted_exactly_and_in_bounded_steps_whatever_its_scales(components, levels):
    p = {
        name: np.array([component[place] for component in components])
        for place, name in enumerate(("probs", "loc", "scale"))
    }
    steps = Steps()
    found = distributions.quantiles(MIXTURE, p, np.array(levels), steps)
    assert steps.taken <= 1 + GUESSES + HALVINGS
    for level, x in zip(levels, found, strict=True):
        check_quantile(p, level, x)


@pytest.mark.parametrize("level", [1 - 1e-12, 1 - 2.0**-50])
def test_the_upper_tail_of_a_mixture_is_as_exact_as_the_lower_one(level):
    p = {
        name: np.array(v)
        for name, v in {"probs": [1.0, 3], "loc": [-1.0, 2], "scale": [1.0, 2]}.items()
    }
    mirrored = {**p, "loc": -p["loc"]}
    (high,) = distributions.quantiles(MIXTURE, p, np.array([level]))
    (low,) = distributions.quantiles(MIXTURE, mirrored, np.array([1 - level]))
    assert high == pytest.approx(-low, rel=1e-14)
    check_quantile(p, level, high)


@pytest.mark.parametrize(
    ("count", "success", "level", "expected"),
    [
        (1e-300, 1 - 1e-12, 0.5, 0),
        (1e-6, 1 - 1e-9, 0.999, 0),
        (0.5, 1 - 1e-9, 1 - 1e-15, None),
        (0.01, 1 - 1e-12, 1 - 1e-15, None),
        (1e3, 1 - 1e-12, 1 - 1e-15, None),
        (1e9, 0.5, 0.25, None),
    ],
)
def test_counts_of_successes_end_far_out_in_the_tail_too(count, success, level, expected):
    p = {"total_count": np.array(count), "probs": np.array(success)}
    family, steps = distributions.FAMILIES["negative_binomial"], Steps()
    (found,) = distributions.quantiles(family, p, np.array([level]), steps)
    assert steps.taken < 200
    if expected is not None:
        assert found == expected
    else:
        before, at = special.betainc(count, [found, found + 1], 1 - success)
        assert before < level <= at


@pytest.mark.parametrize("rate", [1e9, 1e12, 1e15, 1e30, 1e300])
def test_large_counts_have_quantiles(rate):
    family = distributions.FAMILIES["poisson"]
    found = distributions.quantiles(family, {"rate": np.array(rate)}, np.array([0.25, 0.5, 0.75]))
    # That many counts are normal.
    expected = rate + math.sqrt(rate) * np.array([-0.6744897501960817, 0, 0.6744897501960817])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1 + 4 * np.spacing(rate))
    np.testing.assert_array_equal(found, np.floor(found))
