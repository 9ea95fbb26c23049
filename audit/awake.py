"""Keeps the event loop awake while the disk writes, where going to sleep would take about as long."""

import asyncio
import os
from collections.abc import Callable
from typing import Final

# A processor that has gone to sleep takes tens of microseconds to come back, and finds its caches cold.
# A disk that takes longer than this is worth the sleep.
AWAKE_S: Final = 300e-6

# A thread of the kernel's runs for a few microseconds. Whoever takes longer has something to compute,
# and a loop that waits for its turn again hears later than one that is woken up. Now and then that is a
# thread of this process; where it is so in so many writes in a row, another process is at work.
YIELDED_S: Final = 200e-6
YIELDED_MAX: Final = 3
ASLEEP_S: Final = 1.0

# A turn of the loop that had nothing to do takes less.
NOTHING_S: Final = 20e-6


class Awake:
    """Has one event loop look again and again while a write is under way, but not for long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Read the time, in seconds, off `clock`."""
        self._loop = loop
        self._clock = clock
        self._began: float | None = None
        self._looking = False
        self._looked_at: float | None = None
        # For how long the loop did nothing but look, in all.
        self.idle_s = 0.0
        self._mean_s = 0.0
        self._yielded = False
        self._yields = 0
        self._asleep_until = 0.0

    def begin(self) -> None:
        """Take note that a write has begun."""
        self._began = self._clock()
        quick = self._mean_s < AWAKE_S and self._began >= self._asleep_until
        if quick and not self._looking:
            self._looking, self._looked_at = True, None
            self._loop.call_soon(self._look)

    def end(self) -> None:
        """Take note that the write has ended."""
        if self._began is not None:
            took_s = min(self._clock() - self._began, 4 * AWAKE_S)
            self._began = None
            self._mean_s += 0.1 * (took_s - self._mean_s)
            if not self._yielded:
                self._yields = 0
            self._yielded = False

    def _look(self) -> None:
        # Every turn of the loop takes up what has come, and lets other threads have the interpreter.
        now, before = self._clock(), self._looked_at
        if before is not None and now - before < NOTHING_S:
            self.idle_s += now - before
        self._looked_at = now
        self._looking = self._began is not None and now - self._began < AWAKE_S
        if not self._looking:
            return
        # A thread of the kernel's that has to flush the disk's cache may wait for this very processor.
        os.sched_yield()
        if self._clock() - now >= YIELDED_S and not self._yielded:
            self._yielded = True
            self._yields += 1
            if self._yields >= YIELDED_MAX:
                self._looking, self._yields, self._asleep_until = False, 0, now + ASLEEP_S
                return
        self._loop.call_soon(self._look)
