"""How many records a batch is held for, where their callers would come together if they were let."""

import time
from collections.abc import Callable
from typing import Final

# So many batches of few records in a row, and one is held to see who comes.
PROBE_EVERY: Final = 32
# As often as that came to nothing, the next is twice as far away.
PROBE_EVERY_MAX: Final = 1 << 14
# With so many, the next batches are held on trial.
COMPANY: Final = 3
# How long a batch is held at most.
HOLD_S: Final = 4e-3
# After so many it must have brought more records a second, by so much, than as many did before.
TRIAL: Final = 16
WORTH: Final = 1.25
# So many holds in a row that were not filled in time, and it is over.
UNFILLED_MAX: Final = 2
# After so many it has to prove itself again.
HELD_MAX: Final = 1024

ALL: Final = 1 << 30
"""More than ever wait, so that a batch is held for its whole time."""


class Company:
    """Says how many records a batch waits for: 1, so not at all, unless more are known to come.

    Callers whose requests reach the loop one in each turn, as those of gRPC do, are answered one by one
    if each record is written at once, and so they ask again one by one. That costs them and the server
    up to twice what it does together. Held until all of them wait, they stay together. Now and then it
    is tried. Callers who come when they please come no more often for it, and are let go.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wanted = 1
        self._clock = clock
        self._probe_every = PROBE_EVERY
        self._few = 0
        self._held = 0
        self._unfilled = 0
        # The records a second of the last batches that were not held, and what counts towards it.
        self._rate_before = 0.0
        self._batches = 0
        self._records = 0
        self._since = clock()

    def wrote(self, records: int) -> None:
        """Take note of a batch that was not held."""
        self._batches += 1
        self._records += records
        if self._batches == PROBE_EVERY:
            self._rate_before = self._rate()
        if records >= COMPANY:
            self._few = 0
            return
        self._few += 1
        if self._few >= self._probe_every:
            self.wanted = ALL
            self._rate()

    def took(self, records: int, waiting: int) -> None:
        """Take note of a batch that was held, and of how many records came while it was written."""
        self._held += 1
        self._records += records
        filled = records >= self.wanted
        self._unfilled = 0 if filled or self.wanted == ALL else self._unfilled + 1
        if records < COMPANY or self._unfilled == UNFILLED_MAX:
            self._give_up(in_vain=self._held < TRIAL)
        elif self._held == TRIAL and self._rate() < WORTH * self._rate_before:
            self._give_up(in_vain=True)
        elif self._held == HELD_MAX:
            self._give_up(in_vain=False)
        else:
            # Whoever came while it was written is one of the company.
            self.wanted = records + waiting if filled else records

    def _rate(self) -> float:
        """Return the records a second since this was last asked for."""
        now = self._clock()
        rate = self._records / max(now - self._since, 1e-9)
        self._batches = self._records = 0
        self._since = now
        return rate

    def _give_up(self, *, in_vain: bool) -> None:
        self._probe_every = min(2 * self._probe_every, PROBE_EVERY_MAX) if in_vain else PROBE_EVERY
        self.wanted = 1
        self._few = self._held = self._unfilled = 0
        self._rate()
