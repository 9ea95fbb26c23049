"""One timer for the earliest of many deadlines."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings when the earliest deadline that it was told of has passed; then it has to be told again."""

    def __init__(self, clock: Callable[[], float], ring: Callable[[], None]) -> None:
        """Call `ring` on the event loop; deadlines are times of `clock`."""
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        """Ring once `deadline` has passed, or earlier if that was asked for."""
        loop, timer = asyncio.get_running_loop(), self._timer
        at = loop.time() + max(deadline - self._clock(), 0.0)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        self._timer = loop.call_at(at, self._passed)

    def cancel(self) -> None:
        """Ring no more, until a deadline is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _passed(self) -> None:
        self._timer = None
        self._ring()
