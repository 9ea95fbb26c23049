"""How many requests are taken up in one turn of the event loop: as many as the processor's caches hold.

A turn reads whatever a thousand connections have sent. Were all of it taken up together, each step
would be taken by all before anybody takes the next, and would find nothing of its request in the caches
any more. A few at a time go through their steps while what they touch is still there; the others wait,
as they would in any case, and in the order in which they came.
"""

import asyncio
from collections import deque
from typing import Final

PER_TURN: Final = 16


class Turns:
    """Lets `per_turn` requests go on in each turn of the loop, those that came first before others.

    Whoever waits counts as under way: the wait is part of the time that a request takes.
    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = 0

    def take(self) -> asyncio.Future[None] | None:
        """Return None if it is this request's turn, else what to await until it is."""
        if not self._taken:
            # While nobody came, no turn was counted.
            asyncio.get_running_loop().call_soon(self._next)
        elif self._taken >= self._per_turn:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            return turn
        self._taken += 1
        return None

    def _next(self) -> None:
        self._taken = 0
        waiting = self._waiting
        while waiting and self._taken < self._per_turn:
            turn = waiting.popleft()
            # Whoever hung up while it waited takes nobody's turn.
            if not turn.done():
                turn.set_result(None)
                self._taken += 1
        if self._taken:
            asyncio.get_running_loop().call_soon(self._next)
