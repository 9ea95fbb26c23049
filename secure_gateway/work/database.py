"""The SQLite file of queued work: opened for one process, durable, and overwriting what is deleted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from secure_gateway.work.errors import WorkStoreError
from secure_gateway.work.tables import Base

SCHEMA_VERSION: Final = 2

_FROM_1: Final = "ALTER TABLE work ADD COLUMN lasting BOOLEAN NOT NULL DEFAULT 0"


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

    async def cut_journal(self) -> None:
        """Move the write-ahead log into the database: it still holds what was deleted."""
        async with self._connect() as connection:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

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
    cursor.close()
