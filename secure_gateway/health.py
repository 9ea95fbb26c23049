"""Outlier ejection: a node that keeps failing is left alone for a while, whatever its probes say.

Active probes find a node that is down; they do not find one that answers probes and fails at work. So
each node's own requests are watched too: several failures in a row eject it, for twice as long each
time, and one success afterwards brings it back for good.
"""

import time
from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 3
FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 30.0


class NodeHealth:
    """What a node's last requests say of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._ejections = 0
        self._until = 0.0

    @property
    def ejected(self) -> bool:
        """Whether the node should be left alone now."""
        return self._ejections > 0 and self._clock() < self._until

    def succeeded(self) -> None:
        """Take note of a request that the node answered, be it with an error of the caller's."""
        if self._failures or self._ejections:
            self._failures = self._ejections = 0

    def failed(self) -> None:
        """Take note of a request that the node did not answer."""
        self._failures += 1
        # After an ejection one more failure is enough: the node is on trial.
        if self._failures >= FAILURES_MAX or (self._ejections and not self.ejected):
            time_out = FIRST_EJECTION_S * 2 ** min(self._ejections, 10)
            self._until = self._clock() + min(time_out, LONGEST_EJECTION_S)
            self._ejections += 1
            self._failures = 0
