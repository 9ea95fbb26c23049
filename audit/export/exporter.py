"""Follows every log of a site for each destination, and takes up logs that are begun later."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from audit.errors import ExportBusy
from audit.export.state import BEGUN, position_path
from audit.follow import Entry, LogFollower
from audit.publish import CHECKPOINT
from audit.source import LogSource
from audit.tiles import WIDTH
from audit.wal import sync_folder

LOGS_EVERY_S: Final = 2.0
LOCK: Final = "lock"


class Sink(Protocol):
    """What takes batches: `audit.follow.Deliver`, with an end."""

    def __call__(self, entries: Sequence[Entry]) -> Awaitable[int]:
        """Take `entries`; the number is how many of them are refused for good."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...


class Destination(Struct, frozen=True, kw_only=True):
    """A place to export to, and how it is tried; `history` takes what was there before too."""

    name: str
    sink: Sink
    history: bool
    interval_s: float
    retry_s: float
    retry_max_s: float


class Exporter:
    """Hands all records of a site to its destinations, each in the order of its log."""

    def __init__(
        self,
        folder: Path,
        sources: Callable[[], Sequence[LogSource]],
        destinations: Sequence[Destination],
        *,
        logs_every_s: float = LOGS_EVERY_S,
    ) -> None:
        """Keep places in `folder`; which logs there are, `sources` is asked every `logs_every_s`."""
        self._folder = folder
        self._sources = sources
        self._destinations = destinations
        self._logs_every_s = logs_every_s
        self._followers: dict[Path, LogFollower] = {}
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def followed(self) -> int:
        """How many logs are followed, counted once for each destination."""
        return len(self._followers)

    async def start(self) -> None:
        """Find the places and go on from there in the background.

        Raises:
            ExportBusy: if another exporter runs on this folder.
            FollowerLost: if a kept place is not one of its log.
            VerificationError: if a log's checkpoint does not verify.
        """
        await asyncio.to_thread(self._take_lock)
        await self._take_up()
        self._task = asyncio.create_task(self._watch(), name="exporter")

    async def wait(self) -> None:
        """Wait for as long as it runs.

        Raises:
            AuditError: if a log that is begun later cannot be followed.
        """
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Stop; what was taken is kept, and the rest comes after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for follower in self._followers.values():
            await follower.close()
        for destination in self._destinations:
            await destination.sink.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._logs_every_s)
            await self._take_up()

    async def _take_up(self) -> None:
        for destination in self._destinations:
            begun = self._folder / destination.name / BEGUN
            # What is begun after the first start has no history: all of it is exported.
            whole = destination.history or begun.exists()
            for source in await asyncio.to_thread(self._published):
                place = position_path(self._folder, destination.name, source.folder)
                if place not in self._followers:
                    await self._follow(destination, source, place, from_start=whole)
            if not begun.exists():
                await asyncio.to_thread(_mark, begun)

    async def _follow(
        self, destination: Destination, source: LogSource, place: Path, *, from_start: bool
    ) -> None:
        follower = LogFollower(
            source,
            place,
            destination.sink,
            wanted=lambda _: True,
            batch=WIDTH,
            from_start=from_start,
            poll_s=destination.interval_s,
            retry_s=destination.retry_s,
            retry_max_s=destination.retry_max_s,
        )
        await follower.start()
        self._followers[place] = follower

    def _published(self) -> list[LogSource]:
        return [source for source in self._sources() if (source.folder / CHECKPOINT).is_file()]

    def _take_lock(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ExportBusy(f"another process exports from {self._folder}") from error
        self._lock = lock


def _mark(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    sync_folder(path.parent)
