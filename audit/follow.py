"""Follows a published log and hands its records on, in order and at least once.

Where a follower stands is kept in a file that is replaced once what comes before it was taken: after a
kill some records may be handed on again, and none is left out. Whoever takes them knows each by its log
and number. A receiver that fails is tried again, ever more rarely, and everything behind waits: the log
itself is the queue, so that nothing piles up in memory.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from audit.errors import AuditError, FollowerLost, VerificationError
from audit.minimum import read_minimum
from audit.published import read_bundle
from audit.records import AnyRecord, decode
from audit.source import LogSource
from audit.tiles import WIDTH
from audit.verify import read_checkpoint
from audit.wal import sync_folder

POLL_S: Final = 0.2
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0

logger = logging.getLogger(__name__)


class DeliveryFailed(AuditError):
    """Raised by a receiver that did not take records; its message names no content.

    `wait_s` is how long the receiver itself asks to be left alone, if it does.
    """

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Entry(Struct, frozen=True):
    """A record, where it stands (`<log>#<number>`), and its bytes there."""

    log: str
    number: int
    record: AnyRecord
    leaf: bytes

    @property
    def reference(self) -> str:
        """What the record is called."""
        return f"{self.log}#{self.number}"


class Position(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a log was handed on: `next` is the first record that was not.

    `refused` counts those before it that the receiver would never take.
    """

    log: str
    next: int
    refused: int = 0


Deliver = Callable[[Sequence[Entry]], Awaitable[int]]
"""Takes records; what it returned from counts as taken. Raises DeliveryFailed if it cannot.

Returns how many of them the receiver refused for good, which need not be offered again.
"""


def read_position(path: Path) -> Position | None:
    """Return how far a follower got that keeps its place at `path`; None before its first start.

    Raises:
        FollowerLost: if the file says no such thing.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Position)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise FollowerLost(f"{path} does not say how far a log was followed") from error


class LogFollower:
    """Hands the wanted records of one log to one receiver, at most `batch` at a time."""

    def __init__(
        self,
        source: LogSource,
        position: Path,
        deliver: Deliver,
        *,
        wanted: Callable[[AnyRecord], bool],
        batch: int = 1,
        from_start: bool = False,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
        retry_max_s: float = RETRY_MAX_S,
    ) -> None:
        """Follow `source` from the place in the file `position` on.

        Without that file it is followed from what is published now on, or with `from_start` from its
        first record.
        """
        self._source = source
        self._path = position
        self._deliver = deliver
        self._wanted = wanted
        self._batch = batch
        self._from_start = from_start
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._retry_max_s = retry_max_s
        self._next = 0
        self._kept = 0
        self._refused = 0
        self._keeping = threading.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """The number of the first record that was not handed on yet."""
        return self._next

    async def start(self) -> None:
        """Find the place and go on from there in the background.

        Raises:
            FollowerLost: if the kept place is not one of this log.
            VerificationError: if the log's checkpoint does not verify.
            OSError: if the place cannot be kept.
        """
        await asyncio.to_thread(self._find_place)
        self._task = asyncio.create_task(self._run(), name="log-follower")

    async def close(self) -> None:
        """Stop; what was handed on is kept, and the rest comes after the next start."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.to_thread(self._keep)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._catch_up()
                failures = 0
                delay_s = self._poll_s
            except (DeliveryFailed, VerificationError, OSError) as error:
                delay_s = min(self._retry_max_s, self._retry_s * 2 ** min(failures, 16))
                delay_s = max(delay_s, getattr(error, "wait_s", 0.0))
                failures += 1
                logger.warning(
                    "record %d of %s waits for %.0f s: %s",
                    self._next,
                    self._source.verifier.name,
                    delay_s,
                    error,
                )
            await asyncio.sleep(delay_s)

    async def _catch_up(self) -> None:
        while True:
            entries, end = await asyncio.to_thread(self._read)
            if end == self._next:
                break
            for start in range(0, len(entries), self._batch):
                batch = entries[start : start + self._batch]
                refused = await self._deliver(batch)
                self._refused += refused
                self._next = batch[-1].number + 1
                await asyncio.to_thread(self._keep)
            # Those at the end that nobody wants need not be read again, unless after a kill.
            self._next = end

    def _read(self) -> tuple[list[Entry], int]:
        """Return the wanted records of the bundle at the place, and where its published part ends."""
        checkpoint = read_checkpoint(self._source.folder, self._source.verifier)
        self._pass_over_pruned()
        bundle = self._next // WIDTH
        first = bundle * WIDTH
        end = min(checkpoint.size, first + WIDTH)
        if end <= self._next:
            return [], self._next
        entries = []
        for number, leaf in enumerate(read_bundle(self._source.folder, bundle, end - first), first):
            if number >= self._next:
                try:
                    record = decode(leaf)
                except msgspec.MsgspecError as error:
                    raise VerificationError(f"record {number} is not a valid record") from error
                if self._wanted(record):
                    entries.append(Entry(checkpoint.origin, number, record, leaf))
        return entries, end

    def _pass_over_pruned(self) -> None:
        minimum = read_minimum(self._source.folder, self._source.verifier).index
        if self._next < minimum:
            name = self._source.verifier.name
            logger.warning(
                "records %d to %d of %s were pruned before they were handed on",
                self._next,
                minimum - 1,
                name,
            )
            self._next = minimum

    def _find_place(self) -> None:
        size = read_checkpoint(self._source.folder, self._source.verifier).size
        name = self._source.verifier.name
        place = read_position(self._path)
        if place is not None:
            if place.log != name or not 0 <= place.next <= size:
                raise FollowerLost(f"{self._path} is of another log than {name}, or of a longer one")
            self._next = self._kept = place.next
            self._refused = place.refused
            return
        self._next = 0 if self._from_start else size
        self._kept = -1
        self._keep()

    def _keep(self) -> None:
        # A cancelled task leaves its thread behind, which may still be writing.
        with self._keeping:
            if self._next != self._kept:
                self._replace(self._next)

    def _replace(self, position: int) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            place = Position(log=self._source.verifier.name, next=position, refused=self._refused)
            file.write(msgspec.json.encode(place))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        sync_folder(self._path.parent)
        self._kept = position
