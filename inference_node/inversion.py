"""Quantiles by search, for distributions whose inverse is not known or not of bounded cost.

A search keeps two numbers between which the quantile lies and tries one between them, until they are
neighbours. As long as that goes well it tries where a line through the two meets the level: turned
into standard scores, cumulative probabilities lie close to a line. Otherwise it tries the middle of
the two in the order of all doubles, which halves what is left whatever the scale. So it takes at most
`GUESSES` + `HALVINGS` steps for any parameters: 14 for most, and 60 where scales differ widely.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Places = npt.NDArray[np.int64]
Attempt = Callable[[Floats], tuple[npt.NDArray[np.bool_], Floats]]
"""Says of one number for each cell whether its level is reached there, and about how many standard
scores that is from the level: below 0 where it is not reached, infinite where that cannot be told."""
Check = Callable[[], None]
"""Called now and then in a long computation; raises what ends it."""

GUESSES: Final = 24
HALVINGS: Final = 64
"""The order of all doubles has fewer than 2**64 places."""
_BEYOND: Final = 2.0**-6
"""A guess goes this share of its way beyond the quantile, so that both ends come close to it."""
_FIRST: Final = np.int64(-(2**63))


@np.errstate(all="ignore")
def search(
    attempt_of: Callable[[Indices], Attempt],
    low: Floats,
    high: Floats,
    *,
    guess: Floats,
    spread: Floats,
    resolution: Floats | float = 0.0,
    whole: bool = False,
    check: Check,
) -> Floats:
    """Return for each cell [n] the least number above `low`, at most `high`, that reaches its level.

    `attempt_of` is told which cells are still searched, and says how to try numbers for these. `low`
    does not reach the level and `high` does; neither is tried, and both may be infinite. A cell with no
    number between them (or NaN) has `high`. `guess` is tried first, `spread` is about the standard
    deviation. A cell's search also ends where its ends are no further apart than `resolution`. With
    `whole` only whole numbers are tried; `low` and `high` are such, or infinite. `check` is called
    before each step.
    """
    found = high.copy()
    cells: Indices = np.arange(len(low))
    alike: Floats = np.broadcast_to(np.asarray(resolution, np.float64), low.shape)
    below, above = np.full(low.shape, -np.inf), np.full(low.shape, np.inf)
    guessed: npt.NDArray[np.bool_] = np.ones(low.shape, np.bool_)
    attempt, x = attempt_of(cells), np.asarray(guess)
    for step in range(GUESSES + HALVINGS):
        x = _inside(x, low, high, whole=whole)
        open_ = (low < x) & (x < high) & (high - low > alike)
        left = int(np.count_nonzero(open_))
        if left < 0.75 * len(cells):
            found[cells] = high
            if not left:
                return found
            low, high, below, above, spread, alike, x = (
                array[open_] for array in (low, high, below, above, spread, alike, x)
            )
            cells, guessed, open_ = cells[open_], guessed[open_], np.ones(left, np.bool_)
            attempt = attempt_of(cells)
        check()
        reached, away = attempt(x)
        width = high - low
        up, down = open_ & ~reached, open_ & reached
        low, below = np.where(up, x, low), np.where(up, away, below)
        high, above = np.where(down, x, high), np.where(down, away, above)
        known = np.isfinite(above - below)
        guessed = np.asarray(~(guessed & known & (high - low > width / 4)) & (step < GUESSES))
        # A slope of the wrong size must not keep the other end away for long.
        slope = np.where(known, (high - low) / (above - below), spread * 2.0 ** (step / 2))
        x = np.where(guessed, _aimed(low, high, below, above, slope), np.nan)
    found[cells] = high
    return found


def _aimed(low: Floats, high: Floats, below: Floats, above: Floats, slope: Floats) -> Floats:
    """Return what lies a little beyond the quantile, seen from the end that is nearer to it."""
    upwards = -below <= above
    end = np.where(upwards, low, high)
    way = np.abs(np.where(upwards, below, above)) * slope * (1 + _BEYOND)
    way = np.maximum(way, 2 * np.spacing(np.abs(end)))
    return np.asarray(np.where(upwards, end + way, end - way))


def _inside(x: Floats, low: Floats, high: Floats, *, whole: bool) -> Floats:
    """Return `x` where it lies between `low` and `high`, and the middle of their order elsewhere."""
    first, last = _place(low), _place(high)
    # The mean of two integers, rounded down, without their sum: it may need 65 bits.
    middle = _number((first & last) + ((first ^ last) >> 1))
    x = np.where((low < x) & (x < high), x, middle)
    if whole:
        x = np.floor(x)
        x = np.where(x > low, x, low + 1)
    return x


def _place(x: Floats) -> Places:
    """Return the places of doubles in their order: 0 for 0.0 and -0.0, one more for each neighbour."""
    bits = np.ascontiguousarray(x).view(np.int64)
    return np.where(bits < 0, _FIRST - bits, bits)


def _number(place: Places) -> Floats:
    number: Floats = np.where(place < 0, _FIRST - place, place).view(np.float64)
    return number
