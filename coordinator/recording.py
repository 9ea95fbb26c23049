"""Appending to the coordinator's own audit log."""

from collections.abc import Awaitable, Callable

from audit import Log
from audit.records import AnyRecord, encode

Record = Callable[[AnyRecord], Awaitable[str]]


def recorder(log: Log) -> Record:
    """Return what appends a record to `log` and, once it is durable, says where it stands."""

    async def record(entry: AnyRecord) -> str:
        index = await log.append(encode(entry))
        return f"{log.origin}#{index}"

    return record
