"""The console's own log: who signed in, looked at records, fetched reports; before any answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from audit import Log, LogBusy
from audit.records import (
    AnyRecord,
    ConsoleAction,
    ConsoleProblem,
    ConsoleRecord,
    Outcome,
    encode,
)
from console.accounts import Account

BUSY_WAIT_S: Final = 0.05
BUSY_TRIES: Final = 200

OpenLog = Callable[[str], Awaitable[Log]]
"""Opens one of the site's logs by its name."""


class Recorder:
    """Appends to the console's log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    @property
    def writable(self) -> bool:
        """Whether what is done can be recorded."""
        return self._log.writable

    async def append(self, record: AnyRecord) -> str:
        """Return where `record` stands, once it is durable.

        Raises:
            LogUnavailable: if it cannot be; what it is about must not happen then.
        """
        return f"{self._log.origin}#{await self._log.append(encode(record))}"

    async def did(
        self,
        account: Account,
        action: ConsoleAction,
        *,
        problem: ConsoleProblem | None = None,
        subject: str | None = None,
        shown: Sequence[str] = (),
        kind: str | None = None,
        digest: str | None = None,
        address: str | None = None,
    ) -> str:
        """Record what somebody who is signed in does, or was refused; raises as `append`."""
        return await self.append(
            ConsoleRecord(
                time=datetime.now(UTC),
                id=uuid4(),
                action=action,
                outcome=Outcome.SERVED if problem is None else Outcome.REFUSED,
                problem=problem,
                principal=account.name,
                roles=tuple(sorted(role.value for role in account.roles)),
                subject=subject,
                shown=tuple(shown),
                kind=kind,
                digest=digest,
                address=address,
            )
        )


@asynccontextmanager
async def turn(open_log: OpenLog, name: str) -> AsyncIterator[Log]:
    """Give a log that the command line writes too, when nobody else does; it is closed at the end.

    Raises:
        LogBusy: if another process does not let go of it for 10 s.
        LogUnavailable, LogCorrupt: if it cannot be used.
    """
    for _ in range(BUSY_TRIES):
        try:
            log = await open_log(name)
            break
        except LogBusy:
            await asyncio.sleep(BUSY_WAIT_S)
    else:
        log = await open_log(name)
    try:
        yield log
    finally:
        await log.close()
