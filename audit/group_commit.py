"""Group commit: what arrives while a batch is being made durable becomes the next batch."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from audit.company import Company
from audit.disk_pace import DiskPace
from audit.errors import LogUnavailable
from audit.merkle import leaf_hash
from audit.tree import TileTree
from audit.wal import WriteAheadLog

BATCH_MAX: Final = 4096
WAITING_MAX: Final = 65536

# What is longer is written on a thread, however quick the disk is.
INLINE_RECORDS_MAX: Final = 2048

# Of more, what is prepared for the first is out of the processor's caches when it is sent (measured at
# 64 connections: 4.5 % less).
PREPARED_MAX: Final = 4

Meanwhile = Callable[[int], None]
"""Is told the index that a record will have, and does what can be done while it is being written."""

_Waiting = tuple[bytes, "asyncio.Future[int]", Meanwhile | None]
_Written = tuple[Exception | None, list[bytes]]


class GroupCommit:
    """Writes what waits in batches, one at a time, and then adds it to the tree; on one event loop.

    A disk takes two trips for a sync, during which the loop would stand still. What has to be done
    anyway is done on the first: the leaves are hashed, and whoever waits may prepare its answer.
    """

    def __init__(
        self, wal: WriteAheadLog, tree: TileTree, threads: Executor, committed: Callable[[], None]
    ) -> None:
        """Write to `wal` on one of `threads`; `committed` is called after each batch."""
        self._wal = wal
        self._tree = tree
        self._threads = threads
        self._told = committed
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Future[Exception | None] | None = None
        # What runs in place of the next batch, since it must not run beside one.
        self._aside: tuple[Callable[[], None], asyncio.Future[None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._pace = DiskPace()
        self._company = Company()
        # Whether the last batch was one record, and none came with it.
        self._alone = False
        self.failed_at: float | None = None

    def append(self, leaf: bytes, meanwhile: Meanwhile | None = None) -> "asyncio.Future[int]":
        """Queue one record; the future gives its index once it is durable and in the tree.

        `meanwhile` is called while it is being written, if few are written together and that has not
        failed already. What it raises is nobody's: whoever waits can do the same thing again, once the
        record is there.

        Raises:
            LogUnavailable: at once if the queue is full; through the future if it cannot be written.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise LogUnavailable(f"{WAITING_MAX} records already wait for the log's disk")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.append((leaf, future, meanwhile))
        if self._alone and self._committing is None and not self._scheduled:
            # Where records come one by one, none of them waits for a turn of the event loop.
            self._commit()
            self._scheduled = True
            loop.call_soon(self._look)
        else:
            self._schedule(loop)
        return future

    async def between_batches(self, step: Callable[[], None]) -> None:
        """Run `step` on a thread when no batch is being written; records that come meanwhile wait."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._aside = (step, done)
        self._schedule(loop)
        await done

    async def drain(self) -> None:
        """Commit what waits."""
        while self._waiting or self._committing is not None or self._scheduled:
            await asyncio.sleep(0)
            if self._committing is not None:
                await asyncio.wait([self._committing])

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._committing is None and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._commit)

    def _look(self) -> None:
        """See whether a record that was committed at once had company after all."""
        self._scheduled = False
        company = bool(self._waiting)
        if self._committing is None:
            self._go_on()
        if company:
            self._alone = False

    def _commit(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        if self._aside is not None:
            (step, done), self._aside = self._aside, None
            self._committing = loop.run_in_executor(self._threads, _tried, step)
            self._committing.add_done_callback(lambda result: self._stepped(result, done))
            return
        batch = self._waiting[:BATCH_MAX]
        del self._waiting[: len(batch)]
        self._alone = len(batch) == 1
        leaves = [leaf for leaf, _, _ in batch]
        if self._writes_here(len(batch)):
            self._settle(batch, *self._write_here(batch, leaves))
            return
        committing = loop.run_in_executor(self._threads, self._write, leaves)
        self._committing = committing
        hashes = self._prepare(batch)
        committing.add_done_callback(lambda done: self._committed(done, batch, hashes))

    def _writes_here(self, records: int) -> bool:
        """Whether to write on the event loop, which stands still meanwhile."""
        if records > INLINE_RECORDS_MAX or not self._pace.quick or self._wal.full:
            return False
        return not self._company.gathers(records)

    def _write(self, leaves: list[bytes]) -> Exception | None:
        """Make `leaves` durable; return what went wrong."""
        started = self._pace.clock()
        error = _tried(lambda: self._wal.append(leaves, self._tree.size))
        self._note(error, self._pace.clock() - started, len(leaves))
        return error

    def _write_here(self, batch: Sequence[_Waiting], leaves: list[bytes]) -> _Written:
        """Make `leaves` durable on the event loop; return what went wrong, and their hashes."""
        clock = self._pace.clock
        started = clock()
        error = _tried(lambda: self._wal.begin(leaves, self._tree.size))
        took_s = clock() - started
        hashes: list[bytes] = []
        if error is None:
            hashes = self._prepare(batch)
            started = clock()
            error = _tried(self._wal.finish)
            took_s += clock() - started
        self._note(error, took_s, len(leaves))
        return error, hashes

    def _note(self, error: Exception | None, took_s: float, records: int) -> None:
        if error is None:
            self._pace.wrote(took_s, records)
        else:
            self._pace.failed()

    def _prepare(self, batch: Sequence[_Waiting]) -> list[bytes]:
        """Do what can be done while a batch is being written; return the hashes of its leaves."""
        index = self._tree.size
        few = batch if len(batch) <= PREPARED_MAX else ()
        for position, (_, future, meanwhile) in enumerate(few):
            if meanwhile is not None and not future.done():
                _tried(partial(meanwhile, index + position))
        return [leaf_hash(leaf) for leaf, _, _ in batch]

    def _committed(
        self,
        done: "asyncio.Future[Exception | None]",
        batch: Sequence[_Waiting],
        hashes: list[bytes],
    ) -> None:
        self._committing = None
        self._company.came(len(batch), len(self._waiting))
        self._settle(batch, done.result(), hashes)

    def _settle(self, batch: Sequence[_Waiting], error: Exception | None, hashes: list[bytes]) -> None:
        if error is None:
            self.failed_at = None
            index = self._tree.size
            self._tree.extend([leaf for leaf, _, _ in batch], hashes)
            for position, (_, future, _) in enumerate(batch):
                if not future.done():
                    future.set_result(index + position)
            self._told()
        else:
            self.failed_at = time.monotonic()
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            for _, future, _ in batch:
                if not future.done():
                    future.set_exception(LogUnavailable(f"the log cannot be written: {reason}"))
        self._go_on()

    def _stepped(
        self, result: "asyncio.Future[Exception | None]", done: "asyncio.Future[None]"
    ) -> None:
        self._committing = None
        error = result.result()
        if not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting or self._aside is not None:
            self._commit()


def _tried(step: Callable[[], None]) -> Exception | None:
    """Run `step`; return what went wrong."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 whoever waits must be told, whatever it is
        return error
    return None
