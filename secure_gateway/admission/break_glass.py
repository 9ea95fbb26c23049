"""How often one caller may break the glass: enough for any emergency, too little to read a hospital.

A sliding hour for each caller, counted in each replica by itself and taken up again from the log after
a restart. Only what policy permits as break-glass counts, served or not.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

WINDOW_S: Final = 3600.0
CALLERS_MAX: Final = 65536


class BreakGlassLimit:
    """Counts the emergencies of each caller; `per_hour` None sets no limit."""

    def __init__(self, per_hour: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._uses: OrderedDict[str, deque[float]] = OrderedDict()

    def restore(self, uses: Iterable[tuple[str, float]]) -> None:
        """Take up what was counted before a restart: the caller of each use and its age in seconds."""
        now = self._clock()
        for principal, age_s in sorted(uses, key=lambda use: -use[1]):
            self._of(principal).append(now - age_s)

    def take(self, principal: str) -> int | None:
        """Count one use of `principal`; return None, or in how many seconds to try again."""
        if self._per_hour is None:
            return None
        now = self._clock()
        uses = self._of(principal)
        while uses and uses[0] <= now - WINDOW_S:
            uses.popleft()
        if len(uses) >= self._per_hour:
            return max(1, math.ceil(uses[-self._per_hour] + WINDOW_S - now))
        uses.append(now)
        return None

    def _of(self, principal: str) -> deque[float]:
        uses = self._uses.get(principal)
        if uses is None:
            uses = self._uses[principal] = deque()
            if len(self._uses) > CALLERS_MAX:
                self._uses.popitem(last=False)
        else:
            self._uses.move_to_end(principal)
        return uses
