"""One transparency log: records in, durable and signed for, in the order they came.

Group commit: what arrives while a batch is being made durable becomes the next batch. A writer is
answered once its record is durable, integrated in the tree and covered by a signed checkpoint. The
public files follow within a tenth of a second.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from audit.errors import LogBusy, LogCorrupt, LogUnavailable, VerificationError
from audit.merkle import consistency_proof, inclusion_proof
from audit.note import NoteSigner, NoteVerifier
from audit.publish import CHECKPOINT, Publisher
from audit.tiles import ENTRY_MAX_BYTES, WIDTH
from audit.tree import TileTree
from audit.wal import WriteAheadLog, sync_folder

PUBLISH_INTERVAL_S: Final = 0.1
RETRY_AFTER_S: Final = 1.0
BATCH_MAX: Final = 4096
WAITING_MAX: Final = 65536

_Waiting = tuple[bytes, "asyncio.Future[int]"]


class Log:
    """The one writer of a log directory; opened with `Log.open`, used on one event loop."""

    def __init__(self, folder: Path, signer: NoteSigner, lock: int) -> None:
        self._folder = folder
        self._signer = signer
        self._lock = lock
        self._wal = WriteAheadLog(folder / "wal")
        self._tree = TileTree(folder)
        self._publisher = Publisher(folder)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="audit-log")
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Future[None] | None = None
        self._scheduled = False
        self._publishing: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        self._closed = False
        try:
            self._checkpoint = self._recover()
        except BaseException:
            self._wal.close()
            raise

    @classmethod
    async def open(cls, folder: Path, *, origin: str, key: Ed25519PrivateKey) -> "Log":
        """Open or create the log `origin` in `folder`, and take up what a crash left behind.

        Raises:
            LogBusy: if another process writes this log.
            LogCorrupt: if the stored data contradicts itself or the published checkpoint.
            LogUnavailable: if the folder cannot be written.
        """
        return await asyncio.to_thread(cls._open, folder, origin, key)

    @classmethod
    def _open(cls, folder: Path, origin: str, key: Ed25519PrivateKey) -> "Log":
        with ExitStack() as undo:
            try:
                _make_folder(folder)
                lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log = cls(folder, NoteSigner(origin, key), lock)
            except BlockingIOError as error:
                raise LogBusy(f"another process writes the log in {folder}") from error
            except OSError as error:
                raise LogUnavailable(f"the log cannot be opened: {error.strerror}") from error
            undo.pop_all()
            return log

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
        """The newest signed checkpoint; it covers every answered record."""
        return self._checkpoint

    @property
    def size(self) -> int:
        """How many records the newest checkpoint covers."""
        return self._checkpoint.size

    @property
    def writable(self) -> bool:
        """Whether to try: false for a second after an append failed."""
        failed = self._failed_at
        return not self._closed and (failed is None or time.monotonic() - failed > RETRY_AFTER_S)

    def append(self, leaf: bytes) -> "asyncio.Future[int]":
        """Queue one record; the future gives its index once it is durable and signed for.

        Raises:
            LogUnavailable: at once if the log is closed or its queue is full; through the future if
                the record cannot be made durable.
            ValueError: if the record is longer than a log entry may be (65,535 bytes).
        """
        if len(leaf) > ENTRY_MAX_BYTES or not leaf:
            raise ValueError(f"a log entry has 1 to {ENTRY_MAX_BYTES} bytes")
        if self._closed:
            raise LogUnavailable("the log is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise LogUnavailable(f"{WAITING_MAX} records already wait for the log's disk")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.append((leaf, future))
        if self._committing is None and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._commit)
        return future

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the records from `start` to `end`; blocking."""
        return self._tree.leaves(start, min(end, self.size))

    def tile(self, level: int | None, index: int, width: int) -> bytes | None:
        """Return a tile (an entry bundle where `level` is None), or None if it is not there."""
        return self._tree.tile(level, index, width)

    def inclusion_proof(self, index: int, tree_size: int) -> list[bytes]:
        """Return the proof that record `index` is in the tree of `tree_size`; blocking."""
        return inclusion_proof(index, tree_size, self._tree.node)

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the proof that the tree of `second` extends that of `first`; blocking."""
        return consistency_proof(first, second, self._tree.node)

    async def close(self) -> None:
        """Commit what waits, publish everything, and let go of the folder.

        Raises:
            LogUnavailable: if the public files could not be written; every answered record is durable
                all the same, and `open` makes the files again.
        """
        if self._closed:
            return
        self._closed = True
        try:
            while self._waiting or self._committing is not None or self._scheduled:
                await asyncio.sleep(0)
                if self._committing is not None:
                    await asyncio.wait([self._committing])
            if self._publishing is not None:
                await asyncio.wait([self._publishing])
            await asyncio.get_running_loop().run_in_executor(self._threads, self._wal.cut)
            await self._publish()
        except OSError as error:
            raise LogUnavailable(f"the log was closed unpublished: {error.strerror}") from error
        finally:
            # What still runs there uses the files: it ends first, even when the caller gave up.
            self._threads.shutdown()
            self._wal.close()
            os.close(self._lock)

    def _recover(self) -> Checkpoint:
        first, leaves = self._wal.open()
        base = first // WIDTH * WIDTH
        self._tree.restore(base)
        if first > base:
            # The bundle that the segment begins in is complete: that is why earlier ones are gone.
            for leaf in self._tree.stored_bundle(base // WIDTH)[: first - base]:
                self._tree.append(leaf)
        for leaf in leaves:
            self._tree.append(leaf)
        self._check_published()
        checkpoint = sign_checkpoint(self._signer, self._tree.size, self._tree.root())
        complete = self._tree.unwritten()
        self._publisher.publish(self._tree.size, complete, self._tree.partial(), checkpoint.note)
        self._tree.written(list(complete))
        return checkpoint

    def _check_published(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            published = open_checkpoint(path.read_bytes(), [self._signer.verifier])
        except VerificationError as error:
            raise LogCorrupt(f"the published checkpoint is not this log's: {error}") from error
        if published.size > self._tree.size:
            raise LogCorrupt(
                f"records {self._tree.size} to {published.size - 1} were signed for and are missing"
            )
        if self._tree.root_at(published.size) != published.root:
            raise LogCorrupt(f"the first {published.size} records are not those that were signed")

    def _commit(self) -> None:
        self._scheduled = False
        batch = self._waiting[:BATCH_MAX]
        del self._waiting[: len(batch)]
        leaves = [leaf for leaf, _ in batch]
        loop = asyncio.get_running_loop()
        committing = loop.run_in_executor(self._threads, self._wal.append, leaves, self._tree.size)
        self._committing = committing
        committing.add_done_callback(lambda done: self._committed(done, batch))

    def _committed(self, done: "asyncio.Future[None]", batch: Sequence[_Waiting]) -> None:
        self._committing = None
        error = done.exception()
        if error is None:
            self._failed_at = None
            index = self._tree.size
            for leaf, _ in batch:
                self._tree.append(leaf)
            self._checkpoint = sign_checkpoint(self._signer, self._tree.size, self._tree.root())
            for position, (_, future) in enumerate(batch):
                if not future.done():
                    future.set_result(index + position)
            if self._publishing is None and not self._closed:
                self._publishing = asyncio.get_running_loop().create_task(self._publish_soon())
        else:
            self._failed_at = time.monotonic()
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            for _, future in batch:
                if not future.done():
                    future.set_exception(LogUnavailable(f"the log cannot be written: {reason}"))
        if self._waiting:
            self._commit()

    async def _publish_soon(self) -> None:
        try:
            await asyncio.sleep(0 if self._checkpoint.size <= 1 else PUBLISH_INTERVAL_S)
            size = self._checkpoint.size
            try:
                await self._publish()
            except OSError:
                # The records are durable already; the files are published with the next batch.
                self._failed_at = time.monotonic()
                return
        finally:
            self._publishing = None
        if self._checkpoint.size != size and not self._closed:
            self._publishing = asyncio.get_running_loop().create_task(self._publish_soon())

    async def _publish(self) -> None:
        complete, partial = self._tree.unwritten(), self._tree.partial()
        size, checkpoint = self._tree.size, self._checkpoint.note
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self._threads, self._publisher.publish, size, complete, partial, checkpoint
        )
        self._tree.written(list(complete))
        await loop.run_in_executor(self._threads, self._wal.prepare)
        needed = self._wal.releasable()
        if needed is not None and needed <= size // WIDTH * WIDTH:
            await loop.run_in_executor(self._threads, self._publisher.sync, needed)
            await loop.run_in_executor(self._threads, self._wal.release)


def _make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, and their names durable."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)
