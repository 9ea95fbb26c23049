"""Group commit: what arrives while a batch is being made durable becomes the next batch."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from audit.awake import Awake
from audit.company import HOLD_S, Company
from audit.disk_pace import DiskPace
from audit.errors import LogUnavailable
from audit.kernel_ways import KernelWays
from audit.kernel_write import BYTES_MAX as KERNEL_BYTES_MAX
from audit.merkle import leaf_hash
from audit.tree import TileTree
from audit.wal import WriteAheadLog

BATCH_MAX: Final = 4096
WAITING_MAX: Final = 65536

# What is longer is written on a thread, however quick the disk is.
INLINE_RECORDS_MAX: Final = 2048
INLINE_BYTES_MAX: Final = KERNEL_BYTES_MAX // 2

# Of more, what is prepared for the first is out of the processor's caches when it is sent (measured at
# 64 connections: 4.5 % less).
FEW: Final = 4

Meanwhile = Callable[[int], None]
"""Is told the index that a record will have, and does what can be done while it is being written."""

_Waiting = tuple[bytes, "asyncio.Future[int]", Meanwhile | None]


class GroupCommit:
    """Writes what waits in batches, one at a time, and then adds it to the tree; on one event loop.

    The kernel writes a batch while the loop goes on. Where it cannot, the loop waits for it, as long as
    the disk is quick. One that is not, or a batch that takes long to be handed over, has a thread.
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
        # What the kernel is writing.
        self._writing: tuple[Sequence[_Waiting], list[bytes]] | None = None
        # What runs in place of the next batch, since it must not run beside one.
        self._aside: tuple[Callable[[], None], asyncio.Future[None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kernel: KernelWays | None = None
        self._awake: Awake | None = None
        self._scheduled = False
        self._pace = DiskPace()
        self._company = Company()
        self._held: asyncio.TimerHandle | None = None
        # Whether the last batch was one record, and none came with it.
        self._alone = False
        self.failed_at: float | None = None

    @property
    def kept_awake_s(self) -> float:
        """For how long the event loop was kept awake with nothing to do, in all."""
        return 0.0 if self._awake is None else self._awake.idle_s

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
        loop = self._loop or self._begin_on_this_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.append((leaf, future, meanwhile))
        if self._alone and self._committing is None and not self._scheduled and not self._is_held():
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

    async def close(self) -> None:
        """Commit what waits, and let go of the kernel's part in it."""
        try:
            while self._waiting or self._committing is not None or self._scheduled:
                if self._held is not None:
                    self._held.cancel()
                    self._let_go()
                await asyncio.sleep(0)
                if self._committing is not None:
                    await asyncio.wait([self._committing])
        finally:
            self._without_kernel()
            # Only where whoever closes gave up.
            if self._held is not None:
                self._held.cancel()
            for _, future, _ in self._waiting:
                if not future.done():
                    future.set_exception(LogUnavailable("the log was closed"))
            self._waiting.clear()

    def _begin_on_this_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        self._kernel = KernelWays.open(self._written)
        self._awake = Awake(self._loop, self._pace.clock)
        return self._loop

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._committing is not None or self._scheduled:
            return
        if self._is_held():
            if self._held is None:
                self._held = loop.call_later(HOLD_S, self._let_go)
        else:
            self._scheduled = True
            loop.call_soon(self._commit)

    def _is_held(self) -> bool:
        """Whether what waits shall wait for more."""
        return len(self._waiting) < self._company.wanted and self._aside is None

    def _let_go(self) -> None:
        """Write what was held, however little it is."""
        self._held = None
        if self._committing is None and not self._scheduled:
            self._commit()

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
        if self._committing is not None:
            # Its end goes on with what waits. Two batches at once would overwrite each other.
            return
        loop = asyncio.get_running_loop()
        if self._aside is not None:
            (step, done), self._aside = self._aside, None
            self._committing = loop.run_in_executor(self._threads, _tried, step)
            self._committing.add_done_callback(lambda result: self._stepped(result, done))
            return
        if self._held is not None:
            self._held.cancel()
            self._held = None
        batch = self._waiting[:BATCH_MAX]
        del self._waiting[: len(batch)]
        self._alone = len(batch) == 1
        leaves = [leaf for leaf, _, _ in batch]
        short = len(batch) <= INLINE_RECORDS_MAX and sum(map(len, leaves)) <= INLINE_BYTES_MAX
        if short and self._pace.quick and not self._wal.full:
            self._write_here(batch, leaves)
            return
        committing = loop.run_in_executor(self._threads, self._write, leaves)
        self._committing = committing
        hashes = self._prepare(batch)
        committing.add_done_callback(lambda done: self._committed(done, batch, hashes))

    def _write(self, leaves: list[bytes]) -> Exception | None:
        """Make `leaves` durable; return what went wrong."""
        clock, began_segment = self._pace.clock, self._wal.full
        started = clock()
        error = _tried(lambda: self._wal.begin(leaves, self._tree.size))
        handed_over = clock()
        if error is None:
            error = _tried(self._wal.finish)
        # The loop waits for a sync only where the kernel does not.
        took_s = (clock() if self._kernel is None else handed_over) - started
        if error is not None or not began_segment:
            self._note(error, took_s, len(leaves))
        return error

    def _write_here(self, batch: Sequence[_Waiting], leaves: list[bytes]) -> None:
        """Have the kernel make `leaves` durable; wait for them where it cannot."""
        clock = self._pace.clock
        started = clock()
        error, begun = self._handed_over(leaves)
        if begun:
            self._pace.wrote(clock() - started, len(leaves))
            self._go_on_beside(batch)
            return
        if error is None:
            error = _tried(lambda: self._wal.begin(leaves, self._tree.size))
        took_s = clock() - started
        hashes: list[bytes] = []
        if error is None:
            hashes = self._prepare(batch)
            started = clock()
            error = _tried(self._wal.finish)
            took_s += clock() - started
        self._note(error, took_s, len(leaves))
        self._settle(batch, error, hashes)

    def _handed_over(self, leaves: list[bytes]) -> tuple[Exception | None, bool]:
        """Say whether the kernel writes `leaves`; if not, and it is no matter of the kernel's, why."""
        if self._kernel is None:
            return None, False
        try:
            if self._kernel.start(self._wal.blocks(leaves, self._tree.size)):
                return None, True
        except OSError as error:
            return error, False
        self._without_kernel()
        return None, False

    def _go_on_beside(self, batch: Sequence[_Waiting]) -> None:
        """Do what is left to do while the kernel writes `batch`."""
        self._committing = asyncio.get_running_loop().create_future()
        self._writing = batch, self._prepare(batch)
        if self._awake is not None:
            self._awake.begin()

    def _without_kernel(self) -> None:
        """Write without it from here on; what it was writing is waited for."""
        if self._kernel is not None:
            kernel, self._kernel = self._kernel, None
            kernel.close()

    def _written(self, error: OSError | None) -> None:
        """Go on from what the kernel has made durable, or could not."""
        committing, writing = self._committing, self._writing
        if committing is None or writing is None:
            message = "the kernel writes one batch at a time"
            raise AssertionError(message)
        self._committing = self._writing = None
        batch, hashes = writing
        if self._awake is not None:
            self._awake.end()
        if error is None:
            self._wal.finished()
        else:
            self._pace.failed()
        committing.set_result(error)
        self._settle(batch, error, hashes)

    def _note(self, error: Exception | None, took_s: float, records: int) -> None:
        if error is None:
            self._pace.wrote(took_s, records)
        else:
            self._pace.failed()

    def _prepare(self, batch: Sequence[_Waiting]) -> list[bytes]:
        """Do what can be done while a batch is being written; return the hashes of its leaves."""
        index = self._tree.size
        few = batch if len(batch) <= FEW else ()
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
        self._settle(batch, done.result(), hashes)

    def _settle(self, batch: Sequence[_Waiting], error: Exception | None, hashes: list[bytes]) -> None:
        if self._company.wanted == 1:
            self._company.wrote(len(batch))
        else:
            self._company.took(len(batch), len(self._waiting))
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
        if self._aside is not None or (self._waiting and not self._is_held()):
            self._commit()
        elif self._waiting and self._loop is not None:
            self._schedule(self._loop)


def _tried(step: Callable[[], None]) -> Exception | None:
    """Run `step`; return what went wrong."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 whoever waits must be told, whatever it is
        return error
    return None
