"""How busy the thread of an event loop is: how much of the time it runs, or waits for a processor."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
_LINE_BYTES: Final = 96


class LoopLoad:
    """Measures the thread that makes it.

    Linux tells how long a thread ran and how long it was kept waiting for a processor, in nanoseconds
    (Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"): a loop that shares its processor
    with the threads of its models is no less busy for that. Where it is not told, only the processor
    time counts.
    """

    def __init__(self, idle_s: Callable[[], float] = lambda: 0.0) -> None:
        """Leave out how long, in seconds, the thread ran with nothing to do, as `idle_s` tells."""
        self._idle_s = idle_s
        self._file = -1
        with contextlib.suppress(OSError):
            self._file = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        if self._file >= 0 and not self._told_s():
            # A kernel that does not count says 0 of everybody.
            self.close()
        self._at, self._used = time.monotonic(), self._busy_s()

    def since(self) -> float:
        """Return the busy part of the time since this was last asked for, or since the beginning."""
        at, used = time.monotonic(), self._busy_s()
        elapsed, busy = at - self._at, used - self._used
        self._at, self._used = at, used
        return busy / elapsed if elapsed else 1.0

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _busy_s(self) -> float:
        used_s = time.thread_time() if self._file < 0 else self._told_s()
        return used_s - self._idle_s()

    def _told_s(self) -> float:
        ran, waited, _ = os.pread(self._file, _LINE_BYTES, 0).split()
        return (int(ran) + int(waited)) * 1e-9
