"""Prunes an open log as its site decides: the writer of a log is the only one who may."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from audit.errors import LogUnavailable, PruneRefused, VerificationError
from audit.retention.orders import PruneOrder, PruneOrders

if TYPE_CHECKING:
    from audit.log import Log

POLL_S: Final = 2.0

logger = logging.getLogger(__name__)


class PruneWatch:
    """Takes up the orders for one log, when it is opened and for as long as it is open."""

    def __init__(self, log: "Log", orders: PruneOrders, *, poll_s: float | None = None) -> None:
        self._log = log
        self._orders = orders
        self._poll_s = POLL_S if poll_s is None else poll_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what was decided before, then go on looking."""
        await self._look()
        self._task = asyncio.create_task(self._run(), name="prune-watch")

    async def close(self) -> None:
        """Look no more; the log finishes what has begun when it is closed, or opened again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._look()

    async def _look(self) -> None:
        # A log that cannot be pruned goes on taking records; it is tried again.
        try:
            order = await asyncio.to_thread(self._orders.order, self._log.origin)
            if order is not None:
                await self._take_up(order)
        except (VerificationError, LogUnavailable, PruneRefused, OSError) as error:
            logger.warning("%s is not pruned: %s", self._log.origin, error)

    async def _take_up(self, order: PruneOrder) -> None:
        before = self._log.minimum_index
        await self._log.prune(order)
        if self._log.minimum_index == before:
            return
        logger.warning(
            "records %d to %d of %s were pruned [record %s]",
            before,
            order.index - 1,
            self._log.origin,
            order.decision,
        )
