"""Keeps the index up to its logs while a process serves from it, and says how far behind it is."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from audit.errors import AuditError
from audit.index.follow import Indexed, catch_up
from audit.index.store import RecordIndex
from audit.publish import CHECKPOINT
from audit.source import LogSource

LOOK_EVERY_S: Final = 0.5

logger = logging.getLogger(__name__)


class Freshness(Struct, frozen=True, kw_only=True):
    """Up to when the index holds everything that its logs published; None: it never did yet.

    `problem` is why the last look did not succeed.
    """

    at: datetime | None = None
    logs: tuple[Indexed, ...] = ()
    problem: str | None = None


class IndexKeeper:
    """Looks at the logs twice a second and adds what they published, until its owner closes it."""

    def __init__(
        self,
        index: RecordIndex,
        sources: Callable[[], Sequence[LogSource]],
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._index = index
        self._sources = sources
        self._every_s = every_s
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.freshness = Freshness()

    def start(self) -> None:
        """Go on in the background; the first look may take long, and nothing waits for it."""
        self._task = asyncio.create_task(self._run(), name="index-keeper")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Add what was published since the last look; a failure is in `freshness`."""
        async with self._looking:
            began = datetime.now(UTC)
            try:
                sources = await asyncio.to_thread(self._published)
                reached = await catch_up(self._index, sources)
            except (AuditError, OSError) as error:
                problem = (error.strerror or "") if isinstance(error, OSError) else str(error)
                if problem != self.freshness.problem:
                    logger.warning("the search index is not kept up: %s", error)
                last = self.freshness
                self.freshness = Freshness(at=last.at, logs=last.logs, problem=problem)
                return
            self.freshness = Freshness(at=began, logs=tuple(reached))

    def _published(self) -> list[LogSource]:
        # A log that was opened a moment ago, or whose witnesses are silent, has published nothing yet.
        return [source for source in self._sources() if (source.folder / CHECKPOINT).is_file()]

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)
