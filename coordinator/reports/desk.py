"""Takes orders for reports and makes them one at a time, beside the requests.

Orders and what came of them are kept in memory, for an hour: after a restart they are asked for again.
That a report was made is in the log before it can be fetched, whatever becomes of this process.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from audit import AuditError
from audit.errors import ReportRefused
from audit.reports.making import MadeReport, ReportMaker, ReportOrder
from coordinator.problems import Refused

WAITING_MAX: Final = 8
KEPT_MAX: Final = 32
KEPT_BYTES: Final = 256 * 1024 * 1024
KEPT_S: Final = 3600.0


class State(StrEnum):
    """Where an order stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Failure(Struct, frozen=True):
    """Why an order came to nothing: a code, and a sentence of our own."""

    code: str
    detail: str


class Ordered:
    """One order; `step` and `share` say how far it is."""

    def __init__(self, order: ReportOrder, now: float) -> None:
        self.id = secrets.token_hex(16)
        self.order = order
        self.asked = datetime.now(UTC)
        self.state = State.WAITING
        self.step = "waiting for its turn"
        self.share = 0.0
        self.made: MadeReport | None = None
        self.zip = b""
        self.failure: Failure | None = None
        self.touched = now

    def progress(self, step: str, share: float) -> None:
        """Say what is being done."""
        self.step, self.share = step, share


class ReportDesk:
    """The orders of one coordinator."""

    def __init__(self, maker: ReportMaker, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._maker = maker
        self._clock = clock
        self._orders: dict[str, Ordered] = {}
        self._waiting: asyncio.Queue[Ordered] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Make reports from here on."""
        self._task = asyncio.create_task(self._run(), name="reports")

    async def close(self) -> None:
        """Stop; what is under way is given up once its thread is done."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def refuse_if_full(self) -> None:
        """Raise Refused (503) if too many orders wait."""
        if self._waiting.full():
            raise Refused(503, "overloaded", f"{WAITING_MAX} reports wait already; try again later.")

    def order(self, order: ReportOrder) -> Ordered:
        """Take an order.

        Raises:
            Refused: if too many wait.
        """
        self.refuse_if_full()
        self._forget()
        ordered = Ordered(order, self._clock())
        self._orders[ordered.id] = ordered
        self._waiting.put_nowait(ordered)
        return ordered

    def all(self) -> list[Ordered]:
        """Return the orders that are kept, newest first."""
        self._forget()
        return sorted(self._orders.values(), key=lambda one: one.asked, reverse=True)

    def find(self, order_id: str) -> Ordered:
        """Return an order.

        Raises:
            Refused: if there is none, or none any more.
        """
        self._forget()
        ordered = self._orders.get(order_id)
        if ordered is None:
            raise Refused(404, "not-found", "There is no such report, or it is kept no longer.")
        return ordered

    async def _run(self) -> None:
        while True:
            ordered = await self._waiting.get()
            ordered.state = State.RUNNING
            try:
                made = await self._maker.make(ordered.order, ordered.progress)
                ordered.zip = await asyncio.to_thread(made.to_zip)
                ordered.made = made
                ordered.state = State.DONE
                ordered.progress("done", 1.0)
            except (AuditError, OSError) as error:
                ordered.failure = _failure(error)
                ordered.state = State.FAILED
            ordered.touched = self._clock()

    def _forget(self) -> None:
        """Let go of what is old or too much: the oldest first, and never what is not made yet."""
        ended = [one for one in self._orders.values() if one.state in (State.DONE, State.FAILED)]
        ended.sort(key=lambda one: one.touched)
        size = sum(len(one.zip) for one in ended)
        for one in ended:
            old = self._clock() - one.touched > KEPT_S
            if not old and len(self._orders) <= KEPT_MAX and size <= KEPT_BYTES:
                break
            del self._orders[one.id]
            size -= len(one.zip)


def _failure(error: Exception) -> Failure:
    if isinstance(error, ReportRefused):
        return Failure("report-refused", str(error))
    if isinstance(error, OSError):
        return Failure("log-unavailable", "A log or the report's record could not be read or written.")
    return Failure("log-unverified", f"{type(error).__name__}: {error}")
