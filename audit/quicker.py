"""Which of two ways to do the same thing is quicker at present."""

from collections.abc import Callable
from typing import Final

# The other way is tried so many times in a row, once so much time and so many goes have passed. Where
# it takes milliseconds, that is what these few pay.
TRIES: Final = 4
TRY_AGAIN_S: Final = 1.0
TRY_AGAIN_AFTER: Final = 256

# By less than a fifth neither is quicker.
CLEARLY: Final = 0.8


class Quicker:
    """Goes one way, now and then tries the other, and changes over to it if it was clearly quicker."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Read the time, in seconds, off `clock`."""
        self._clock = clock
        self._first = True
        self._mean_s: float | None = None
        self._goes = 0
        self._tries_left = 0
        self._tried_s = 0.0
        self._try_at = clock() + TRY_AGAIN_S

    @property
    def first(self) -> bool:
        """Whether to go the first way this time."""
        return self._first != (self._tries_left > 0)

    def took(self, took_s: float) -> None:
        """Take note of how long it took, the way that `first` said."""
        if not self._tries_left:
            mean_s = took_s if self._mean_s is None else self._mean_s
            self._mean_s = mean_s + 0.1 * (took_s - mean_s)
            self._goes += 1
            if self._goes >= TRY_AGAIN_AFTER and self._clock() >= self._try_at:
                self._tries_left, self._tried_s = TRIES, 0.0
            return
        self._tried_s += took_s / TRIES
        self._tries_left -= 1
        if self._tries_left:
            return
        self._goes, self._try_at = 0, self._clock() + TRY_AGAIN_S
        if self._mean_s is not None and self._tried_s < CLEARLY * self._mean_s:
            self._first, self._mean_s = not self._first, self._tried_s
