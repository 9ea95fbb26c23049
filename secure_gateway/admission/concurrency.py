"""How many requests for one model may be under way: as many as it completes in a bearable wait.

By Little's law what is under way divided by what is completed in a second is the time that each
request takes. The limit follows the measured rate of completion, so it grows where a model batches
well and shrinks where a node is lost, and nobody has to guess it. What is past it is refused at once:
a queue that grows would serve everybody too late.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from secure_gateway.admission.settings import AdmissionSettings

WINDOW_S: Final = 0.25
# A limit that is met is looked at again sooner, once this many requests say how fast it goes: a burst
# after a quiet time is let in as quickly as it turns out to be served.
HURRIED_WINDOW_S: Final = 0.02
HURRIED_COMPLETED: Final = 8
# How much of a lower rate is believed at once; a higher one is believed entirely.
FOLLOW: Final = 0.3


class ConcurrencyLimit:
    """The limit of one model."""

    __slots__ = ("_clock", "_completed", "_rate", "_settings", "_since", "limit", "peak", "under_way")

    def __init__(
        self, settings: AdmissionSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._since = clock()
        self._completed = 0
        self._rate = 0.0
        self.limit = settings.least
        self.under_way = 0
        self.peak = 0

    @property
    def full(self) -> bool:
        """Whether the next request must be refused; a limit that is met is measured again first."""
        if self.under_way >= self.limit:
            hurried = self._completed >= HURRIED_COMPLETED
            self._measure(HURRIED_WINDOW_S if hurried else WINDOW_S)
            return self.under_way >= self.limit
        return False

    @property
    def room(self) -> int:
        """How many more requests would be let in now."""
        return 0 if self.full else self.limit - self.under_way

    def enter(self) -> bool:
        """Count a request in; False if it must be refused."""
        if self.full:
            return False
        self.under_way += 1
        if self.under_way > self.peak:
            self.peak = self.under_way
        return True

    def leave(self, *, served: bool) -> None:
        """Count a request out; only one that was `served` says what the model can do."""
        self.under_way -= 1
        self._completed += served
        if not self._completed & 15:
            self._measure(WINDOW_S)

    @property
    def wait_s(self) -> int:
        """How long, in whole seconds, until trying again makes sense."""
        if not self._rate:
            return 1
        return max(1, math.ceil(self.under_way / self._rate - self._settings.target_wait_s))

    def _measure(self, window_s: float) -> None:
        elapsed = self._clock() - self._since
        if elapsed < window_s:
            return
        if self.peak * 2 >= self.limit:
            # Under pressure: what is completed now is what can be completed.
            rate = self._completed / elapsed
            self._rate += (rate - self._rate) * (1 if rate > self._rate else FOLLOW)
            wanted = math.ceil(self._rate * self._settings.target_wait_s)
            self.limit = max(self._settings.least, min(self._settings.most, wanted))
        self._completed = 0
        self._since += elapsed
        self.peak = self.under_way
