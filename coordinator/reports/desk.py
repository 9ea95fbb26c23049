"""Takes orders for reports and makes them one at a time, beside the requests.

Orders and what came of them are kept in a folder, for an hour after they ended: a restart goes on with
what was not made yet. Each order is shown to whoever gave it and to nobody else. That a report was made
is in the log before it can be fetched, whatever becomes of this process.
"""

import asyncio
import contextlib
import secrets
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from audit import AuditError
from audit.errors import ReportRefused
from audit.reports import KINDS
from audit.reports.making import ReportMaker, ReportOrder
from coordinator.problems import Refused
from coordinator.reports.shelf import Failure, KeptOrder, Made, OrderShelf, State

WAITING_MAX: Final = 8
KEPT_MAX: Final = 32
KEPT_BYTES: Final = 256 * 1024 * 1024
KEPT_S: Final = 3600.0


class Ordered:
    """One order; `step` and `share` say how far it is."""

    def __init__(self, order_id: str, order: ReportOrder, asked: datetime, touched: float) -> None:
        self.id = order_id
        self.order = order
        self.asked = asked
        self.state = State.WAITING
        self.step = "waiting for its turn"
        self.share = 0.0
        self.made: Made | None = None
        self.failure: Failure | None = None
        self.touched = touched

    def progress(self, step: str, share: float) -> None:
        """Say what is being done."""
        self.step, self.share = step, share

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (State.DONE, State.FAILED)

    def end(self, kept: KeptOrder) -> None:
        """Take up what came of it."""
        self.state, self.made, self.failure = kept.state, kept.made, kept.failure
        self.touched = kept.touched
        if self.state is State.DONE:
            self.progress("done", 1.0)

    def kept(self) -> KeptOrder:
        """Return what is kept of it."""
        return KeptOrder(
            id=self.id,
            kind=self.order.kind.name,
            filters=self.order.filters,
            hours=self.order.hours,
            principal=self.order.principal,
            asked=self.asked,
            state=self.state,
            touched=self.touched,
            made=self.made,
            failure=self.failure,
        )


class ReportDesk:
    """The orders that one component takes, kept in `folder`."""

    def __init__(
        self, maker: ReportMaker, folder: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._maker = maker
        self._shelf = OrderShelf(folder)
        self._clock = clock
        self._orders: dict[str, Ordered] = {}
        self._waiting: asyncio.Queue[Ordered] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take up what was ordered before, and make reports from here on."""
        for kept in self._shelf.load():
            ordered = _take_up(kept)
            if ordered is None:
                continue
            self._orders[ordered.id] = ordered
            if not ordered.ended:
                self._waiting.put_nowait(ordered)
        self._task = asyncio.create_task(self._run(), name="reports")

    async def close(self) -> None:
        """Stop; what is under way is given up once its thread is done, and begun again at a restart."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def refuse_if_full(self) -> None:
        """Raise Refused (503) if too many orders wait."""
        if self._waiting.qsize() >= WAITING_MAX:
            raise Refused(503, "overloaded", f"{WAITING_MAX} reports wait already; try again later.")

    async def order(self, order: ReportOrder) -> Ordered:
        """Take an order.

        Raises:
            Refused: if too many wait, or it cannot be kept.
        """
        self.refuse_if_full()
        self._forget()
        ordered = Ordered(secrets.token_hex(16), order, datetime.now(UTC), self._clock())
        try:
            await asyncio.to_thread(self._shelf.keep, ordered.kept())
        except OSError as error:
            raise Refused(503, "store-unavailable", "The order cannot be kept; try again.") from error
        self._orders[ordered.id] = ordered
        self._waiting.put_nowait(ordered)
        return ordered

    def of(self, principal: str) -> list[Ordered]:
        """Return the orders that `principal` gave and that are kept, newest first."""
        self._forget()
        own = [one for one in self._orders.values() if one.order.principal == principal]
        return sorted(own, key=lambda one: one.asked, reverse=True)

    def find(self, order_id: str, principal: str) -> Ordered:
        """Return an order that `principal` gave.

        Raises:
            Refused: if there is none, or none any more.
        """
        self._forget()
        ordered = self._orders.get(order_id)
        if ordered is None or ordered.order.principal != principal:
            raise Refused(404, "not-found", "There is no such report, or it is kept no longer.")
        return ordered

    async def content(self, ordered: Ordered, member: str | None) -> bytes | None:
        """Return a report that is made: its zip file, or a file out of it; None if it has no such file.

        Raises:
            Refused: if it is gone or damaged.
        """
        if ordered.made is None or (member is not None and member not in ordered.made.files):
            return None
        try:
            return await asyncio.to_thread(self._shelf.report, ordered.id, member)
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise Refused(404, "not-found", "This report is kept no longer: order it again.") from error

    async def _run(self) -> None:
        while True:
            ordered = await self._waiting.get()
            ordered.state = State.RUNNING
            made, failure = None, None
            try:
                made = await self._make(ordered)
            except (AuditError, OSError) as error:
                failure = _failure(error)
            ended = replace(
                ordered.kept(),
                state=State.DONE if failure is None else State.FAILED,
                touched=self._clock(),
                made=made,
                failure=failure,
            )
            # On a full disk it is not kept that it ended: it is made again after a restart. Before it
            # is said to have ended, since what has ended may be removed at any time.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._shelf.keep, ended)
            ordered.end(ended)

    async def _make(self, ordered: Ordered) -> Made:
        made = await self._maker.make(ordered.order, ordered.progress)
        data = await asyncio.to_thread(made.to_zip)
        await asyncio.to_thread(self._shelf.keep_report, ordered.id, data)
        return Made(
            records=len(made.report.entries),
            place=made.place,
            digest=made.package.digest,
            size_bytes=len(data),
            files=tuple(sorted(made.package.files)),
        )

    def _forget(self) -> None:
        """Let go of what is old or too much: the oldest first, and never what is not made yet."""
        ended = sorted((one for one in self._orders.values() if one.ended), key=lambda one: one.touched)
        size = sum(one.made.size_bytes for one in ended if one.made is not None)
        for one in ended:
            old = self._clock() - one.touched > KEPT_S
            if not old and len(self._orders) <= KEPT_MAX and size <= KEPT_BYTES:
                break
            del self._orders[one.id]
            self._shelf.remove(one.id)
            size -= 0 if one.made is None else one.made.size_bytes


def _take_up(kept: KeptOrder) -> Ordered | None:
    """Return an order as it stood; one that was under way waits again, one of no known kind is none."""
    kind = KINDS.get(kept.kind)
    if kind is None:
        return None
    order = ReportOrder(kind=kind, filters=kept.filters, hours=kept.hours, principal=kept.principal)
    ordered = Ordered(kept.id, order, kept.asked, kept.touched)
    if kept.state in (State.DONE, State.FAILED):
        ordered.end(kept)
    return ordered


def _failure(error: Exception) -> Failure:
    if isinstance(error, ReportRefused):
        return Failure("report-refused", str(error))
    if isinstance(error, OSError):
        return Failure("log-unavailable", "A log or the report's record could not be read or written.")
    return Failure("log-unverified", f"{type(error).__name__}: {error}")
