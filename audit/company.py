"""How many records a batch is held for, where their callers would come together if they were let."""

import time
from collections.abc import Callable
from typing import Final

# So many batches of few records in a row, and one is held to see who comes.
PROBE_EVERY: Final = 32
# As often as that was in vain, the next is twice as far away.
PROBE_EVERY_MAX: Final = 2048
# From so many on, the next batches are held as well.
COMPANY: Final = 3
# How long a batch is held at most. If one came in the last quarter of it, more were on their way.
HOLD_S: Final = 4e-3
# After so many held batches one waits for whoever comes: there may be more callers by now.
HELD_MAX: Final = 64

ALL: Final = 1 << 30
"""More than ever wait, so that a batch is held for its whole time."""


class Company:
    """Says how many records a batch waits for: 1, so not at all, unless more are known to come.

    Callers whose requests reach the loop one in each turn, as those of gRPC do, are answered one by one
    if each record is written at once, and so they ask again one by one. That costs them and the server
    up to twice what it does together. Held until all of them wait, they stay together. Whether there
    are any is tried now and then, and given up as soon as few come.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wanted = 1
        self._clock = clock
        self._probe_every = PROBE_EVERY
        self._few = 0
        self._held = 0
        self._came_at = 0.0
        self._more = False

    def wrote(self, records: int) -> None:
        """Take note of a batch that was not held."""
        if records >= COMPANY:
            self._few = 0
            return
        self._few += 1
        if self._few >= self._probe_every:
            self.wanted = ALL

    def came(self) -> None:
        """Take note of a record that came while a batch is held."""
        self._came_at = self._clock()

    def waited(self) -> None:
        """Take note that the time for which a batch is held is over."""
        self._more = self._clock() - self._came_at < HOLD_S / 4

    def took(self, records: int, waiting: int) -> None:
        """Take note of a batch that was held, and of how many records came while it was written."""
        more, self._more = self._more or waiting > 0, False
        if records < COMPANY and not more:
            if self._held == 0:
                self._probe_every = min(2 * self._probe_every, PROBE_EVERY_MAX)
            self.wanted = 1
            self._few = self._held = 0
            return
        self._probe_every = PROBE_EVERY
        self._held += 1
        self.wanted = ALL if more or self._held % HELD_MAX == 0 else records
