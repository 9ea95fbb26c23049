"""The log of a site's policies: every step of a bundle's life, and so which versions were published.

Whoever takes a step opens it, one at a time, also from the command line while a coordinator runs: its
lock is what keeps two from publishing at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from audit import Log, LogBusy, NoteVerifier
from audit.publish import CHECKPOINT
from audit.records import PolicyOutcome, PolicyRecord, PolicyStep, decode, encode
from audit.verify import read_checkpoint, read_entries, verify_tree

BUSY_WAIT_S: Final = 0.05
BUSY_TRIES: Final = 200

_PUBLICATIONS: Final = (PolicyStep.PUBLISH, PolicyStep.ROLLBACK)


class Steps:
    """The log while it is open: what is in it, and what is added."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def published(self) -> list[PolicyRecord]:
        """Return the publications, oldest first; blocking."""
        return publications(decode_steps(self._log.entries(0, self._log.size)))

    async def record(self, step: PolicyRecord) -> str:
        """Add a step; return where its record stands, once it is durable.

        Raises:
            LogUnavailable: if it cannot be made durable; the step must not be taken then.
        """
        index = await self._log.append(encode(step))
        return f"{self._log.origin}#{index}"


class Ledger:
    """Opens the log of a site's policies for one step at a time."""

    def __init__(
        self, open_log: Callable[[], Awaitable[Log]], folder: Path, verifier: NoteVerifier
    ) -> None:
        self._open_log = open_log
        self._folder = folder
        self._verifier = verifier

    @asynccontextmanager
    async def steps(self) -> AsyncIterator[Steps]:
        """Give the log to one step, when no other is being taken.

        Raises:
            LogBusy: if another process does not let go of it for 10 s.
            LogUnavailable, LogCorrupt: if it cannot be used.
        """
        log = await self._open()
        try:
            yield Steps(log)
        finally:
            await log.close()

    def read(self) -> list[PolicyRecord]:
        """Return every step, oldest first, the log verified whole; blocking.

        Raises:
            VerificationError: if it does not verify.
        """
        if not (self._folder / CHECKPOINT).is_file():
            return []
        checkpoint = read_checkpoint(self._folder, self._verifier)
        verify_tree(self._folder, checkpoint)
        return decode_steps(read_entries(self._folder, checkpoint.size))

    async def _open(self) -> Log:
        for _ in range(BUSY_TRIES):
            try:
                return await self._open_log()
            except LogBusy:
                await asyncio.sleep(BUSY_WAIT_S)
        return await self._open_log()


def decode_steps(leaves: list[bytes]) -> list[PolicyRecord]:
    """Return the steps among log entries."""
    return [record for record in map(decode, leaves) if isinstance(record, PolicyRecord)]


def publications(steps: list[PolicyRecord]) -> list[PolicyRecord]:
    """Return those of `steps` that put a bundle into force."""
    return [step for step in steps if step.step in _PUBLICATIONS and step.outcome is PolicyOutcome.DONE]
