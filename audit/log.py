"""One transparency log: records in, durable and signed for, in the order they came.

Group commit: what arrives while a batch is being made durable becomes the next batch. A writer is
answered once its record is durable and integrated in the tree; every checkpoint that is asked for from
then on covers it. The public files follow within a tenth of a second.
"""

import asyncio
import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosigning import Witnesses, WitnessState
from audit.errors import LogBusy, LogUnavailable, PruneRefused
from audit.group_commit import GroupCommit, Meanwhile
from audit.merkle import consistency_proof, inclusion_proof
from audit.minimum import MinimumIndex, remove_bundles, sign_minimum, write_minimum
from audit.note import NoteSigner, NoteVerifier
from audit.publish import CHECKPOINT, COSIGNED, Publisher
from audit.recovery import recover, take_up
from audit.retention import PruneOrder, PruneOrders
from audit.retention.watch import PruneWatch
from audit.tiles import ENTRY_MAX_BYTES, WIDTH
from audit.tree import TileTree
from audit.wal import WriteAheadLog, make_folder
from audit.witnessed import WitnessedPublication

PUBLISH_INTERVAL_S: Final = 0.1
RETRY_AFTER_S: Final = 1.0


class Log:
    """The one writer of a log directory; opened with `Log.open`, used on one event loop."""

    def __init__(
        self,
        folder: Path,
        signer: NoteSigner,
        lock: int,
        witnesses: Witnesses | None = None,
        refuse_after_s: float | None = None,
        *,
        withheld: bool = True,
    ) -> None:
        self._folder = folder
        self._signer = signer
        self._lock = lock
        self._wal = WriteAheadLog(folder / "wal")
        self._tree = TileTree(folder)
        self._publisher = Publisher(folder)
        self._witnessed: WitnessedPublication | None = None
        self._withheld = withheld and witnesses is not None
        if witnesses is not None:
            publisher = self._publisher
            self._witnessed = WitnessedPublication(
                witnesses,
                self.consistency_proof,
                publisher.publish_checkpoint if withheld else publisher.publish_beside,
                refuse_after_s=refuse_after_s,
            )
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="audit-log")
        self._commit = GroupCommit(self._wal, self._tree, self._threads, self._publish_later)
        self._publishing: asyncio.Task[None] | None = None
        self._prunes_waiting = 0
        self._closed = False
        self._watch: PruneWatch | None = None
        try:
            self._checkpoint = self._recover()
        except BaseException:
            self._wal.close()
            raise

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        witnesses: Witnesses | None = None,
        refuse_after_s: float | None = None,
        withheld: bool = True,
        orders: PruneOrders | None = None,
    ) -> "Log":
        """Open or create the log `origin` in `folder`, and take up what a crash left behind.

        With `witnesses`, a checkpoint is published once their quorum cosigned it; if it is not
        `withheld`, it is published at once, and the last that they cosigned stands beside it. Records
        are taken while they are silent, for `refuse_after_s` seconds if that is given. With `orders`,
        the log is pruned as they say, at once and for as long as it is open.

        Raises:
            LogBusy: if another process writes this log.
            LogCorrupt: if the stored data contradicts itself or the published checkpoint.
            LogUnavailable: if the folder cannot be written.
        """
        signer = NoteSigner(origin, key)
        log = await asyncio.to_thread(
            cls._open, folder, signer, witnesses, refuse_after_s, withheld=withheld
        )
        log.bring_to_witnesses()
        if orders is not None:
            await log.watch(orders)
        return log

    @classmethod
    def _open(
        cls,
        folder: Path,
        signer: NoteSigner,
        witnesses: Witnesses | None,
        refuse_after_s: float | None,
        *,
        withheld: bool,
    ) -> "Log":
        with ExitStack() as undo:
            try:
                make_folder(folder)
                lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log = cls(folder, signer, lock, witnesses, refuse_after_s, withheld=withheld)
            except BlockingIOError as error:
                raise LogBusy(f"another process writes the log in {folder}") from error
            except OSError as error:
                raise LogUnavailable(f"the log cannot be opened: {error.strerror}") from error
            undo.pop_all()
            return log

    def bring_to_witnesses(self, checkpoint: Checkpoint | None = None) -> None:
        """Ask the witnesses, if there are any, for a checkpoint whose tiles are in place."""
        if self._witnessed is not None:
            self._witnessed.offer(checkpoint or self.checkpoint)

    @property
    def origin(self) -> str:
        """The log's name, unique among all logs: `<site>/<replica>`."""
        return self._signer.verifier.name

    @property
    def verifier(self) -> NoteVerifier:
        """The key that verifies this log's checkpoints."""
        return self._signer.verifier

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest signed checkpoint; it covers every answered record.

        Signed when it is asked for: a signature costs as much as the rest of a small commit, and is
        seen by nobody until then.
        """
        if self._checkpoint.size != self._tree.size:
            self._checkpoint = sign_checkpoint(self._signer, self._tree.size, self._tree.root())
        return self._checkpoint

    @property
    def published(self) -> Checkpoint | None:
        """The checkpoint that readers are given: if it is withheld, the last that a quorum cosigned.

        None until there is one.
        """
        if self._witnessed is None or not self._withheld:
            return self.checkpoint
        return self._witnessed.published

    @property
    def witness_states(self) -> dict[str, WitnessState]:
        """How each witness answered last, by its name."""
        return {} if self._witnessed is None else self._witnessed.states

    @property
    def size(self) -> int:
        """How many records the log holds, all of them durable."""
        return self._tree.size

    @property
    def minimum_index(self) -> int:
        """The first record that is there: those before it were pruned."""
        return self._minimum.index

    @property
    def minimum(self) -> MinimumIndex:
        """The minimum index as the log signed it, or none with an empty note."""
        return self._minimum

    @property
    def kept_awake_s(self) -> float:
        """For how long it kept the event loop awake with nothing to do, in all."""
        return self._commit.kept_awake_s

    @property
    def writable(self) -> bool:
        """Whether to try: false for a second after an append failed, or once witnesses are overdue."""
        failed = self._commit.failed_at
        if self._witnessed is not None and self._witnessed.overdue:
            return False
        return not self._closed and (failed is None or time.monotonic() - failed > RETRY_AFTER_S)

    def append(self, leaf: bytes, meanwhile: Meanwhile | None = None) -> "asyncio.Future[int]":
        """Queue one record; the future gives its index once it is durable and in the tree.

        `meanwhile` may be called with that index while the record is being written: what it prepares
        may go nowhere before the future is done. What it raises is passed over.

        Raises:
            LogUnavailable: at once if the log is closed or its queue is full; through the future if
                the record cannot be made durable.
            ValueError: if the record is longer than a log entry may be (65,535 bytes).
        """
        if len(leaf) > ENTRY_MAX_BYTES or not leaf:
            raise ValueError(f"a log entry has 1 to {ENTRY_MAX_BYTES} bytes")
        if self._closed:
            raise LogUnavailable("the log is closed")
        if self._witnessed is not None and self._witnessed.overdue:
            raise LogUnavailable("the log's witnesses have been silent for too long")
        return self._commit.append(leaf, meanwhile)

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the records from `start` to `end`; blocking.

        Raises:
            RecordsPruned: if `start` is below the minimum index.
        """
        return self._tree.leaves(start, min(end, self.size))

    def tile(self, level: int | None, index: int, width: int) -> bytes | None:
        """Return a tile (an entry bundle where `level` is None), or None if it is not there."""
        return self._tree.tile(level, index, width)

    def pruned(self, bundle: int) -> bool:
        """Say whether an entry bundle was pruned."""
        return self._tree.pruned(None, bundle)

    def inclusion_proof(self, index: int, tree_size: int) -> list[bytes]:
        """Return the proof that record `index` is in the tree of `tree_size`; blocking."""
        return inclusion_proof(index, tree_size, self._tree.node)

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the proof that the tree of `second` extends that of `first`; blocking."""
        return consistency_proof(first, second, self._tree.node)

    async def watch(self, orders: PruneOrders) -> None:
        """Prune as `orders` say, at once and for as long as the log is open."""
        self._watch = PruneWatch(self, orders)
        await self._watch.start()

    async def prune(self, order: PruneOrder) -> None:
        """Remove the records below a minimum index from every file of the log, for good.

        Hash tiles stay, so that every proof can still be made. What has begun is finished when the log
        is next opened, if it is stopped on its way.

        Raises:
            PruneRefused: if the index is not of a whole bundle that a published checkpoint covers.
            LogUnavailable: if the log is closed, or a file cannot be written or removed.
        """
        # While records keep coming one publication follows the other: the next one lets this go first.
        self._prunes_waiting += 1
        try:
            while self._publishing is not None:
                await asyncio.wait([self._publishing])
            if self._closed:
                raise LogUnavailable("the log is closed")
            published = self.published
            if order.index % WIDTH or published is None or order.index > published.size:
                message = f"no published checkpoint covers {order.index} records in whole bundles"
                raise PruneRefused(message)
            if order.index <= self._gone:
                return
            # Publishing waits meanwhile: both write the same files.
            pruning = self._publishing = asyncio.get_running_loop().create_task(self._prune(order))
        finally:
            self._prunes_waiting -= 1
            self._publish_later()
        await asyncio.wait([pruning])
        pruning.result()

    async def close(self) -> None:
        """Commit what waits, publish everything, and let go of the folder.

        Raises:
            LogUnavailable: if the public files could not be written; every answered record is durable
                all the same, and `open` makes the files again.
        """
        if self._closed:
            return
        if self._watch is not None:
            await self._watch.close()
        self._closed = True
        try:
            await self._commit.close()
            if self._publishing is not None:
                await asyncio.wait([self._publishing])
            await asyncio.get_running_loop().run_in_executor(self._threads, self._wal.cut)
            await self._publish()
            if self._witnessed is not None:
                await self._witnessed.close()
        except OSError as error:
            raise LogUnavailable(f"the log was closed unpublished: {error.strerror}") from error
        finally:
            # What still runs there uses the files: it ends first, even when the caller gave up.
            self._threads.shutdown()
            self._wal.close()
            os.close(self._lock)

    def _recover(self) -> Checkpoint:
        self._minimum = recover(self._folder, self._signer.verifier, self._wal, self._tree)
        self._gone = self._minimum.index
        self._check_published()
        checkpoint = sign_checkpoint(self._signer, self._tree.size, self._tree.root())
        complete = self._tree.unwritten()
        note = self._note_of(checkpoint)
        self._publisher.publish(self._tree.size, complete, self._tree.partial(), note)
        self._tree.written(list(complete))
        return checkpoint

    def _check_published(self) -> None:
        published = take_up(self._folder / CHECKPOINT, self._signer.verifier, self._tree)
        if self._withheld or self._witnessed is None:
            # Without witnesses, or with what they saw in its own place, nothing stands beside it.
            (self._folder / COSIGNED).unlink(missing_ok=True)
            seen = published
        else:
            seen = take_up(self._folder / COSIGNED, self._signer.verifier, self._tree)
        if self._witnessed is not None:
            self._witnessed.take_up(seen)

    def _note_of(self, checkpoint: Checkpoint) -> bytes | None:
        """Return what is published of a checkpoint that was just signed; None if it is withheld."""
        if self._withheld:
            return None
        seen = None if self._witnessed is None else self._witnessed.published
        return seen.note if seen is not None and seen.size == checkpoint.size else checkpoint.note

    def _publish_later(self) -> None:
        if self._publishing is None and not self._closed and not self._prunes_waiting:
            self._publishing = asyncio.get_running_loop().create_task(self._publish_soon())

    async def _prune(self, order: PruneOrder) -> None:
        run = asyncio.get_running_loop().run_in_executor
        index = order.index
        try:
            await self._publish()
            await run(self._threads, self._publisher.sync, index)
            if index > self.minimum_index:
                minimum = sign_minimum(self._signer, index, order.newest, order.decision)
                await run(self._threads, write_minimum, self._folder, minimum)
                self._minimum = minimum
                self._tree.prune(index)
            index = self.minimum_index
            await self._commit.between_batches(lambda: self._wal.compact(index))
            await run(self._threads, remove_bundles, self._folder, index)
            self._gone = index
        except OSError as error:
            raise LogUnavailable(f"the log cannot be pruned: {error.strerror}") from error
        finally:
            self._publishing = None
            self._publish_later()

    async def _publish_soon(self) -> None:
        try:
            await asyncio.sleep(0 if self.size <= 1 else PUBLISH_INTERVAL_S)
            size = self.size
            try:
                await self._publish()
            except OSError:
                # The records are durable already; the files are published with the next batch.
                self._commit.failed_at = time.monotonic()
                return
        finally:
            self._publishing = None
        if self.size != size:
            self._publish_later()

    async def _publish(self) -> None:
        complete, partial = self._tree.unwritten(), self._tree.partial()
        size, checkpoint = self._tree.size, self.checkpoint
        note = self._note_of(checkpoint)
        run = asyncio.get_running_loop().run_in_executor
        await run(self._threads, self._publisher.publish, size, complete, partial, note)
        self._tree.written(list(complete))
        self.bring_to_witnesses(checkpoint)
        await run(self._threads, self._wal.prepare)
        needed = self._wal.releasable()
        if needed is not None and needed <= size // WIDTH * WIDTH:
            await run(self._threads, self._publisher.sync, needed)
            await run(self._threads, self._wal.release)
