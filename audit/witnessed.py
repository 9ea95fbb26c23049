"""Publishes a log's checkpoints once enough witnesses have cosigned them.

It runs beside the log: no request waits for a witness. While too few answer, records are taken and
answered as ever, and readers keep the last checkpoint that the quorum saw; only a site that says so
refuses after a while. A log whose own site must read at once what it wrote publishes each checkpoint,
and the last one that the quorum saw stands beside it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from audit.checkpoint import Checkpoint
from audit.cosigning import TIMEOUT_S, ConsistencyProof, Witnesses, WitnessState

CLOSING_S: Final = TIMEOUT_S + 1

logger = logging.getLogger(__name__)


class WitnessedPublication:
    """What one log publishes by its witnesses' leave; used on one event loop."""

    def __init__(
        self,
        witnesses: Witnesses,
        prove: ConsistencyProof,
        publish: Callable[[int, bytes], None],
        *,
        refuse_after_s: float | None,
    ) -> None:
        self._witnesses = witnesses
        self._prove = prove
        self._publish = publish
        self._refuse_after_s = refuse_after_s
        self._offered: Checkpoint | None = None
        self.published: Checkpoint | None = None
        # Since when something waits to be cosigned.
        self._since: float | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def states(self) -> dict[str, WitnessState]:
        """How each witness answered last, by its name."""
        return self._witnesses.states

    @property
    def overdue(self) -> bool:
        """Whether the witnesses have been silent for longer than this site serves without them."""
        if self._refuse_after_s is None or self._since is None:
            return False
        return time.monotonic() - self._since > self._refuse_after_s

    def take_up(self, published: Checkpoint | None) -> None:
        """Take up what was published before, if its quorum is there."""
        if published is not None and self._witnesses.satisfied(published.note):
            self.published = published

    def offer(self, checkpoint: Checkpoint) -> None:
        """Bring `checkpoint`, whose tiles are in place, to the witnesses instead of the one before."""
        self._offered = checkpoint
        if self._pending is None:
            return
        if self._since is None:
            self._since = time.monotonic()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="cosigning")

    async def close(self) -> None:
        """Ask the witnesses once more, for some seconds at most, and let go of them."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._witnesses.close()

    @property
    def _pending(self) -> Checkpoint | None:
        newest, published = self._offered, self.published
        if newest is None or (published is not None and published.size == newest.size):
            return None
        return newest

    async def _run(self) -> None:
        while True:
            last = self._closing
            self._wake.clear()
            checkpoint = self._pending
            if checkpoint is not None:
                await self._bring(checkpoint)
            if last:
                return
            # A dead witness is asked again at the pace of a living one; a change of mind ends the wait.
            if self._pending is None:
                await self._wake.wait()
            await self._pause()

    async def _pause(self) -> None:
        deadline = time.monotonic() + self._witnesses.interval_s
        while not self._closing and (left := deadline - time.monotonic()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    async def _bring(self, checkpoint: Checkpoint) -> None:
        note = await self._witnesses.cosign(checkpoint, self._prove)
        if note is None:
            return
        try:
            await asyncio.to_thread(self._publish, checkpoint.size, note)
        except OSError as error:
            logger.warning("a cosigned checkpoint could not be published: %s", error)
            return
        self.published = Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, note)
        self._since = None if self._pending is None else time.monotonic()
