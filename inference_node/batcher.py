"""A work-conserving batcher: an idle runtime never waits, what waits meanwhile runs together.

Requests that arrive in one turn of the event loop, or while a batch runs, become the next batch.
Nothing is delayed in the hope of company. The queue is bounded; a full one refuses at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from inference_node.errors import DeadlineExceeded, ExecutionFailed, QueueFull
from inference_node.oip import Array

Feed = Mapping[str, Array]
Run = Callable[[Feed, Sequence[str]], list[Array]]
Outcome = list[Array] | ExecutionFailed


class Item:
    """One request that waits: `signature` says which others it may run with."""

    __slots__ = ("deadline", "feed", "future", "outputs", "rows", "signature")

    def __init__(
        self,
        feed: Feed,
        outputs: tuple[str, ...],
        rows: int,
        deadline: float | None,
        future: asyncio.Future[list[Array]],
    ) -> None:
        self.feed = feed
        self.outputs = outputs
        self.rows = rows
        self.deadline = deadline
        self.future = future
        self.signature = (outputs, *((name, array.shape[1:]) for name, array in feed.items()))


def take_batch(queue: deque[Item], max_rows: int, now: float) -> tuple[list[Item], list[Item]]:
    """Take the next batch off `queue`; return it and the items whose deadline has passed.

    The oldest item leads; those behind it join while they have its signature and rows are left. An
    item that does not fit ends the batch, so that none is overtaken. Cancelled items are dropped.
    """
    batch: list[Item] = []
    late: list[Item] = []
    rows = 0
    while queue:
        item = queue[0]
        if item.future.done():
            queue.popleft()
            continue
        if item.deadline is not None and item.deadline <= now:
            late.append(queue.popleft())
            continue
        if batch and (item.signature != batch[0].signature or rows + item.rows > max_rows):
            break
        batch.append(queue.popleft())
        rows += item.rows
    return batch, late


def join(batch: Sequence[Item]) -> Feed:
    """Return one feed with the rows of every item, in order."""
    if len(batch) == 1:
        return batch[0].feed
    return {name: np.concatenate([item.feed[name] for item in batch]) for name in batch[0].feed}


def split(batch: Sequence[Item], results: Sequence[Array]) -> list[list[Array]]:
    """Return each item's own rows of `results`.

    Raises:
        ExecutionFailed: if the model did not answer one row for each row.
    """
    if len(batch) == 1:
        return [list(results)]
    total = sum(item.rows for item in batch)
    if any(len(result) != total for result in results):
        raise ExecutionFailed("the model mixes rows and cannot be batched")
    parts = []
    start = 0
    for item in batch:
        parts.append([result[start : start + item.rows] for result in results])
        start += item.rows
    return parts


class Batcher:
    """Queues the requests of one model version and runs them in batches.

    With an `executor` batches run in its thread, one at a time, and the event loop goes on. Without
    one they run on the event loop: right for a model so small that the hop to a thread costs more
    than the run.
    """

    def __init__(
        self, run: Run, *, max_rows: int, max_queue_size: int, executor: Executor | None
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_queue_size = max_queue_size
        self._executor = executor
        self._queue: deque[Item] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._running: asyncio.Future[list[Outcome]] | None = None
        self._batch: list[Item] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self, feed: Feed, outputs: tuple[str, ...], rows: int, deadline: float | None = None
    ) -> asyncio.Future[list[Array]]:
        """Queue one request; the future gives its outputs.

        `deadline` is a `time.monotonic()` time; a request that has not begun by then is refused.

        Raises:
            QueueFull: at once, if `max_queue_size` requests wait.
        """
        if len(self._queue) >= self._max_queue_size:
            raise QueueFull(f"{self._max_queue_size} requests already wait for the model")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Array]] = loop.create_future()
        self._queue.append(Item(feed, outputs, rows, deadline, future))
        if not self._scheduled and self._running is None:
            self._scheduled = True
            self._idle.clear()
            loop.call_soon(self._flush)
        return future

    async def drain(self) -> None:
        """Wait until nothing waits or runs."""
        await self._idle.wait()

    def _flush(self) -> None:
        self._scheduled = False
        while True:
            batch, late = take_batch(self._queue, self._max_rows, time.monotonic())
            for item in late:
                item.future.set_exception(DeadlineExceeded("the deadline passed in the queue"))
            if not batch:
                self._idle.set()
                return
            if self._executor is not None:
                self._start(batch, self._executor)
                return
            _settle(batch, self._attempt(batch))

    def _start(self, batch: list[Item], executor: Executor) -> None:
        self._batch = batch
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(executor, self._attempt, batch)
        self._running.add_done_callback(self._finish)

    def _finish(self, running: asyncio.Future[list[Outcome]]) -> None:
        batch, self._batch, self._running = self._batch, [], None
        _settle(batch, running.result())
        self._flush()

    def _attempt(self, batch: list[Item]) -> list[Outcome]:
        try:
            return list(split(batch, self._run(join(batch), batch[0].outputs)))
        except ExecutionFailed as error:
            if len(batch) == 1:
                return [error]
            # One caller's row must not fail another's: run each by itself.
            return [self._attempt([item])[0] for item in batch]


def _settle(batch: list[Item], outcomes: list[Outcome]) -> None:
    for item, outcome in zip(batch, outcomes, strict=True):
        if item.future.done():
            continue
        if isinstance(outcome, ExecutionFailed):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)
