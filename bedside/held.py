"""Connections that are not read from for a while, because what comes would be refused.

Whoever is refused is told to come again in a second or more. A connection that goes on all the same
costs for each refusal a good part of what a small model costs for an answer; past so many refusals a
second, what it sends is left with the kernel, and TCP slows down whoever sends it. Whoever is held is
called in turn, as soon as a place is free, and places are kept for those whose turn it is. So what has
waited is served, and whoever asks again just after an answer is refused at once: nobody waits for a
refusal, unless so many go on that their turn does not come within `HELD_MAX_S`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

HELD_MAX_S: Final = 1.0
TICK_S: Final = 0.005
BURST_S: Final = 0.05


class Unread(StrEnum):
    """Why a connection is left unread: a crowd is served in shifts, or it went on after a refusal."""

    SHIFT = "shift"
    REFUSED = "refused"


class Connection(Protocol):
    """A connection that can be left unread."""

    def go_on(self, *, called: bool) -> None:
        """Read from it again; a place is kept for a moment for one that is `called`."""


class Doors(Protocol):
    """What knows how many are let in, for each model."""

    def room(self, model: str) -> int:
        """Return how many more requests would be let in now."""

    def keep(self, model: str, places: int) -> None:
        """Let in only those who are called, while no more than `places` are free."""


class HeldConnections:
    """Holds back what is past `per_s` refusals a second, and calls it in turn."""

    def __init__(
        self, doors: Doors, per_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._doors = doors
        self._per_s = per_s
        self._clock = clock
        self._allowed = self._most = per_s * BURST_S
        self._at = clock()
        self._held: dict[str, deque[tuple[float, Connection]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def __len__(self) -> int:
        """Return how many connections are left unread."""
        return sum(map(len, self._held.values()))

    def refused(self, connection: Connection, model: str) -> bool:
        """Count a refusal for `model`; say whether its connection waits until it is told to go on."""
        now = self._refill()
        self._allowed -= 1
        if self._allowed >= 0 or self._ended:
            return False
        self._held.setdefault(model, deque()).append((now + HELD_MAX_S, connection))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return True

    def look(self) -> None:
        """Call those whose turn it is where there is room, and let go whoever waited long enough."""
        now = self._refill()
        for model, held in list(self._held.items()):
            # For each that is called somebody else is refused, who would have had its place.
            turns = max(0, min(len(held), int(self._allowed)))
            called = min(turns, self._doors.room(model))
            for _ in range(called):
                held.popleft()[1].go_on(called=True)
            while held and held[0][0] <= now:
                held.popleft()[1].go_on(called=False)
            # A place that was kept is free again at the next look: who is called may ask nothing.
            self._doors.keep(model, min(turns, called + len(held)))
            if not held and not called:
                del self._held[model]

    def end(self) -> None:
        """Let all go on, and hold nobody any more."""
        self._ended = True
        for held in self._held.values():
            while held:
                held.popleft()[1].go_on(called=False)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.look()
        finally:
            # Whatever fails, those who wait are looked for again.
            if self._held:
                self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _refill(self) -> float:
        now = self._clock()
        refilled = self._allowed + (now - self._at) * self._per_s
        self._allowed, self._at = max(-self._most, min(self._most, refilled)), now
        return now
