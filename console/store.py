"""The console's database: one SQLite file, durable at each commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from console.errors import StoreError

MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Store:
    """Sessions on the database; opened with `Store.open`."""

    def __init__(self, path: Path) -> None:
        url = URL.create("sqlite+aiosqlite", database=str(path))
        # An error of the database never quotes what was stored.
        self._engine = create_async_engine(url, hide_parameters=True)
        event.listen(self._engine.sync_engine, "connect", _durable)
        event.listen(self._engine.sync_engine, "begin", _take_turns)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    @classmethod
    async def open(cls, path: Path) -> "Store":
        """Open the database at `path`, migrated to the newest schema.

        Raises:
            StoreError: if it cannot be used.
        """
        try:
            await asyncio.to_thread(_migrate, path)
        except (SQLAlchemyError, CommandError, OSError) as error:
            raise StoreError(
                f"the database {path} is damaged, cannot be written, or is of a later Bedside"
            ) from error
        return cls(path)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give a session whose changes are committed at the end, or not at all.

        Raises:
            StoreError: if the database fails meanwhile.
        """
        try:
            async with self._sessions() as session, session.begin():
                yield session
        except SQLAlchemyError as error:
            raise StoreError("the console's database cannot be used") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


def _migrate(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    config = Config()
    # The percent sign is special to alembic's configuration.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = URL.create("sqlite", database=str(path))
    command.upgrade(config, "head")


def _durable(connection: Any, _: Engine) -> None:  # noqa: ANN401 a DBAPI connection has no type
    # The driver would begin a transaction only before the first write; `_take_turns` does it earlier.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _take_turns(connection: Any) -> None:  # noqa: ANN401 SQLAlchemy's own connection
    # Two sign-ins that count a failure at once must not both read the same count.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
