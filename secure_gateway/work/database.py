"""The SQLite file of queued work: opened for one process, durable, and overwriting what is deleted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy import URL, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from secure_gateway.work.errors import WorkStoreError
from secure_gateway.work.tables import Base

SCHEMA_VERSION: Final = 2

# How long a step waits for another program that has the file.
LOCKED_MS: Final = 5000

P = ParamSpec("P")
T = TypeVar("T")

_FROM_1: Final = "ALTER TABLE work ADD COLUMN lasting BOOLEAN NOT NULL DEFAULT 0"


def whole(step: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let `step` come to its end though its caller is cancelled, who waits for that.

    A transaction that is cut short leaves its connection to the garbage, and the file locked.
    """

    @wraps(step)
    async def to_its_end(*args: P.args, **kwargs: P.kwargs) -> T:
        begun = asyncio.ensure_future(step(*args, **kwargs))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            await asyncio.wait({begun})
            # Looked at, so that nobody reports it as never retrieved.
            if not begun.cancelled():
                begun.exception()
            raise

    return to_its_end


class WorkDatabase:
    """Gives transactions on one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            # An error of the database never quotes what was stored.
            hide_parameters=True,
            # One writer at a time is all that SQLite has; waiting here is fair and never "locked".
            pool_size=1,
            max_overflow=0,
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)

    async def close(self) -> None:
        """Close the file."""
        await self._engine.dispose()

    async def create(self) -> None:
        """Make the tables that are not there.

        Raises:
            WorkStoreError: if the file is of a later Bedside, or cannot be used.
        """
        async with self.begin() as connection:
            version = (await connection.execute(text("PRAGMA user_version"))).scalar_one()
            if version not in (0, 1, SCHEMA_VERSION):
                raise WorkStoreError(f"the database {self._path} is of another version of Bedside")
            if version == 1:
                await connection.execute(text(_FROM_1))
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))

    async def cut_journal(self) -> bool:
        """Move the write-ahead log into the database; False while another program reads or writes.

        Raises:
            WorkStoreError: if the file cannot be used.
        """
        async with self._connect() as connection:
            # Whoever is at it may be for long, a backup say, and all else would wait meanwhile.
            await connection.execute(text("PRAGMA busy_timeout = 0"))
            try:
                row = (await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
            finally:
                await connection.execute(text(f"PRAGMA busy_timeout = {LOCKED_MS}"))
        return int(row[0]) == 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Give a transaction that is durable at the end, or undone.

        Raises:
            WorkStoreError: if the file cannot be used.
        """
        try:
            async with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise WorkStoreError(f"the database {self._path} cannot be used") from error

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection outside of transactions, as some pragmas need."""
        try:
            async with self._engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")
        except SQLAlchemyError as error:
            raise WorkStoreError(f"the database {self._path} cannot be used") from error


def _prepare(connection: Any, _: Engine) -> None:  # noqa: ANN401 a DBAPI connection has no type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.execute(f"PRAGMA busy_timeout={LOCKED_MS}")
    cursor.close()
