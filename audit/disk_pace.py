"""Where durable writes are waited for: on the event loop while the disk is quick, else on a thread."""

import time
from collections.abc import Callable
from typing import Final

# Two hops between threads cost as much as a write to a quick disk. A disk that is not quick is waited
# for on a thread, for so long at least.
INLINE_BELOW_S: Final = 400e-6
INLINE_AGAIN_S: Final = 0.2

# What each record of a batch may take besides, a fifteenth of what its request does.
PER_RECORD_S: Final = 4e-6

# Other writers' syncs make one write in hundreds take milliseconds. It counts as four times the bound:
# two in a row end writing on the loop, and one alone only from ten milliseconds on.
_COUNTED_MOST_S: Final = 4 * INLINE_BELOW_S
STALLED_S: Final = 10e-3


class DiskPace:
    """Says whether the disk is quick enough to be waited for on the event loop.

    Where the kernel syncs by itself, that is for as long as it takes to be handed the records.

    On the loop the moving average counts. On a thread it is the quickest write, since any other may
    also have waited for the interpreter's lock.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._mean_s = 0.0
        self._quickest_s = 0.0
        self._again_at: float | None = None

    @property
    def quick(self) -> bool:
        """Whether the next write may be made on the event loop."""
        again_at = self._again_at
        if again_at is None:
            return True
        if self.clock() < again_at or self._quickest_s >= INLINE_BELOW_S:
            return False
        self._again_at, self._mean_s = None, self._quickest_s
        return True

    def wrote(self, took_s: float, records: int = 1) -> None:
        """Take note of a write of so many records that succeeded."""
        took_s -= (records - 1) * PER_RECORD_S
        if self._again_at is None:
            self._mean_s += 0.1 * (min(took_s, _COUNTED_MOST_S) - self._mean_s)
            if self._mean_s >= INLINE_BELOW_S or took_s >= STALLED_S:
                self.failed()
        elif took_s < self._quickest_s:
            self._quickest_s = took_s

    def failed(self) -> None:
        """Take note of a write that failed; what follows is not waited for on the loop."""
        self._again_at, self._quickest_s = self.clock() + INLINE_AGAIN_S, float("inf")
