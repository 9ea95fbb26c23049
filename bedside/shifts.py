"""Which connections are read from while more ask at once than the processor's caches hold.

Of a thousand connections that all wait for an answer, each is answered when nothing of it is in the
caches any more, which takes a third more time than the answers to a few. So they come in shifts: few
are read from at a time, whoever has been answered some times in a row makes room for the one that
waited longest, and what the others send is left with the kernel meanwhile. Most answers come much
sooner for it and more of them come in a second; those at the beginning of a shift come later.

This holds only as long as the loop is what everybody waits for. Where it has time left, since the time
goes to a model's own threads or to a node, more are read from until it has none.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from bedside import held
from bedside.loop_load import LoopLoad

# With so many requests under way the loop always has something to do.
FEW: Final = 64
# So many connections still leave enough in the caches.
CROWD: Final = 384
# How many answers a shift has, and how many at the least: one by one nothing stays in the caches.
ANSWERS: Final = 4
WORTH: Final = 2
# What cannot be left unread takes no turns. With more than this part of the answers it would have, at
# the others' cost, what they leave to each other.
OUTSIDERS_MAX: Final = 0.1
# Once shifts were given up, for so long there are none.
REST_S: Final = 1.0
# How much of a new rate is believed at once: a stall of the disk is soon over.
FOLLOW: Final = 0.3
TICK_S: Final = 0.002
LOOK_S: Final = 0.05
BUSY: Final = 0.75
# A loop with time left lets in so many times more after each look.
GROWTH: Final = 4
MANY: Final = 1 << 16
CALM_LOOKS: Final = 4
# Nobody waits longer for a shift, however long callers are to be left waiting.
PATIENCE_MAX_S: Final = 1.0

NOTHING_BEGUN: Final = -2
"""What `begun_in` is where no request is under way."""


class Connection(held.Connection, Protocol):
    """A connection that can be left unread, and what is noted on it here."""

    begun_in: int
    in_row: int


class Load(Protocol):
    """What says how busy the loop is."""

    def since(self) -> float:
        """Return the busy part of the time since this was last asked for."""

    def close(self) -> None:
        """Measure no more."""


class Shifts:
    """Says after each answer whether its connection is left unread, and for how long.

    Nobody is left for longer than `patience_s`, and half of it is aimed at: with so many connections
    that it would take longer, shifts are shorter, and where they would be too short there are none.
    Nor are there any while callers are refused, as `refusing` says: they have to be told at once. Nor
    where much is answered that could not be left unread: connections that end with each answer, or on
    which more was sent already. It would be served before all who can wait.
    """

    def __init__(
        self,
        patience_s: float,
        *,
        refusing: Callable[[], bool] = lambda: False,
        load: Callable[[], Load] = LoopLoad,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = min(patience_s, PATIENCE_MAX_S)
        self._refusing = refusing
        self._make_load = load
        self._clock = clock
        self._load: Load | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        # The places of what began, or was answered, in this window and in the one before. What is older
        # is slow, which is not the loop's doing, or is not asking again.
        self._window = 0
        self._young = self._older = 0
        self._few = MANY
        self._in_row = ANSWERS
        # Since the last look: all answers, and those after which the connection could be left unread.
        self._answers = self._asked = 0
        self._rate = 0.0
        self._looked_at = 0.0
        self._rests_until = 0.0
        self._calm = 0
        self._waiting: deque[tuple[float, Connection]] = deque()

    def __len__(self) -> int:
        """Return how many connections are left unread."""
        return len(self._waiting)

    @property
    def watching(self) -> bool:
        """Whether so many were under way lately that the load of the loop is looked at."""
        return self._timer is not None

    @property
    def taken(self) -> int:
        """How many connections have a place."""
        return self._young + self._older

    def begun(self, connection: Connection) -> None:
        """Count a request in."""
        self.gone(connection)
        connection.begun_in = self._window
        self._young += 1

    def answered(self, connection: Connection) -> None:
        """Count it out; in a crowd its place is kept for a moment, since it is about to ask again."""
        self._answers += 1
        connection.in_row += 1
        if self._timer is not None:
            self.begun(connection)
            return
        self.gone(connection)
        if self.taken > CROWD and not self._ended:
            self._watch()

    def gone(self, connection: Connection) -> None:
        """Take back the place of a connection, if it has one."""
        if connection.begun_in == self._window:
            self._young -= 1
        elif connection.begun_in == self._window - 1:
            self._older -= 1
        connection.begun_in = NOTHING_BEGUN

    def over(self, connection: Connection) -> bool:
        """Say whether a connection that was just answered is left unread until it is told to go on.

        To be asked wherever it could be.
        """
        if self._timer is None:
            return False
        self._asked += 1
        in_shift = connection.in_row < self._in_row or not self._waiting
        if in_shift and self.taken <= self._few:
            return False
        self.gone(connection)
        connection.in_row = 0
        self._waiting.append((self._clock() + self._patience_s, connection))
        return True

    def look(self) -> None:
        """Call those for whom there is room, and those who have waited long enough."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._adapt(now)
        waiting = self._waiting
        for _ in range(min(len(waiting), self._few - self.taken)):
            waiting.popleft()[1].go_on(called=False)
        while waiting and waiting[0][0] <= now:
            waiting.popleft()[1].go_on(called=False)

    @property
    def look_in_s(self) -> float:
        """In how long to look again."""
        return TICK_S if self._few < MANY else LOOK_S

    def end(self) -> None:
        """Let all go on, and leave nobody unread any more."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._stop()
        while self._waiting:
            self._waiting.popleft()[1].go_on(called=False)

    def _watch(self) -> None:
        self._load = self._make_load()
        self._looked_at, self._calm = self._clock(), 0
        self._answers, self._asked, self._rate = 0, 0, 0.0
        self._few = MANY
        self._tick_later()

    def _tick(self) -> None:
        try:
            self.look()
        finally:
            # Whatever fails, those who wait are looked for again.
            if self._calm > CALM_LOOKS and not self._waiting:
                self._stop()
            else:
                self._tick_later()

    def _tick_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.look_in_s, self._tick)

    def _stop(self) -> None:
        self._timer = None
        if self._load is not None:
            self._load.close()
            self._load = None

    def _adapt(self, now: float) -> None:
        """Fit what is let in and for how long to how busy the loop is, and how fast."""
        elapsed, self._looked_at = now - self._looked_at, now
        asking = len(self._waiting) + self.taken
        self._calm = 0 if asking > CROWD else self._calm + 1
        rate = self._answers / elapsed
        self._rate = self._rate + (rate - self._rate) * FOLLOW if self._rate else rate
        in_time = self._rate * self._patience_s / 2
        self._in_row = min(ANSWERS, int(in_time / max(1, asking)))
        outsiders = self._answers - self._asked > self._answers * OUTSIDERS_MAX
        busy = self._load is not None and self._load.since() >= BUSY
        in_vain = asking <= CROWD or self._in_row < WORTH or outsiders or self._refusing()
        if in_vain and self._few < MANY:
            self._rests_until = now + REST_S
        if in_vain or now < self._rests_until:
            self._few = MANY
        elif not busy:
            self._few = min(MANY, self._few * GROWTH)
        else:
            self._few = FEW if self._few >= MANY else max(FEW, self._few // GROWTH)
        self._answers = self._asked = 0
        self._window += 1
        self._older, self._young = self._young, 0
