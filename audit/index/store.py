"""The search index: a database that holds a copy of the records of a site's logs, and nothing else."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from msgspec import Struct
from sqlalchemy import URL, delete, event, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from audit.errors import IndexBusy, IndexUnavailable
from audit.index.counting import Counts, count_rows
from audit.index.tables import TALLIED, logs, records, tallies

MIGRATIONS: Final = Path(__file__).parent / "migrations"
DRIVERS: Final = {"sqlite": ("sqlite+aiosqlite", "sqlite"), "postgresql": ("postgresql+asyncpg",) * 2}


HELD_TRIES: Final = 50
ANALYSED_ROWS: Final = 1000


class Held(Struct, frozen=True, kw_only=True):
    """What the index held at one moment: the size and the end of each log, and the counts."""

    sizes: dict[str, int]
    ends: dict[str, int]
    counts: Counts


class RecordIndex:
    """An open index; one writer at a time, any number of readers."""

    def __init__(self, url: URL) -> None:
        # An error of the database never quotes what was stored.
        self._engine = create_async_engine(url, hide_parameters=True, pool_pre_ping=True)
        if url.get_backend_name() == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _as_cache)

    @classmethod
    async def open(cls, address: str, *, password: str | None = None) -> "RecordIndex":
        """Open the index at `address`, `sqlite:///<path>` or `postgresql://user@host/name`.

        Raises:
            IndexUnavailable: if the address is none of these, or the database cannot be used.
        """
        url = _url(address, password)
        try:
            await asyncio.to_thread(_migrate, url)
        except (SQLAlchemyError, CommandError, OSError) as error:
            raise IndexUnavailable(
                "the search index cannot be opened: it is damaged, of a later Bedside, or its database "
                "does not answer; it can be deleted and made again with `bedside audit index rebuild`"
            ) from error
        return cls(url)

    @property
    def knows_values(self) -> bool:
        """Whether the database knows how many rows have a value, or only how many values there are."""
        return self._engine.dialect.name != "sqlite"

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def sizes(self) -> dict[str, int]:
        """Return how many records of each log are indexed."""
        async with self.reading() as connection:
            rows = await connection.execute(select(logs.c.origin, logs.c.size))
            return {row.origin: row.size for row in rows}

    async def held(self) -> "Held":
        """Return what is indexed, all as of one moment: another process may be adding to it.

        Raises:
            IndexUnavailable: if the index cannot be read, or is written without a pause.
        """
        for _ in range(HELD_TRIES):
            sizes = await self.sizes()
            async with self.reading() as connection:
                last = select(records.c.origin, func.max(records.c.position)).group_by(records.c.origin)
                ends = {origin: most + 1 for origin, most in await connection.execute(last)}
                rows = await connection.execute(
                    select(*(tallies.c[name] for name in TALLIED), tallies.c.count)
                )
                counts = Counter({tuple(row[:-1]): row[-1] for row in rows})
            # Sizes, records and counts change together, or not at all.
            if await self.sizes() == sizes:
                return Held(sizes=sizes, ends=ends, counts=counts)
        raise IndexBusy("the search index is being written; try again in a moment")

    async def add(self, origin: str, start: int, rows: Sequence[dict[str, Any]]) -> None:
        """Add the records of `origin` from position `start` on, all or none.

        Raises:
            IndexBusy: if another writer was there first.
            IndexUnavailable: if the database fails.
        """
        counted = _counts_of(count_rows(rows), 1)
        try:
            async with self._engine.begin() as connection:
                known = await connection.scalar(select(logs.c.size).where(logs.c.origin == origin))
                if (known or 0) != start:
                    raise IndexBusy("another process writes the search index")
                upsert, addition = _upserts(self._engine.dialect.name)
                await connection.execute(upsert, {"origin": origin, "size": start + len(rows)})
                await connection.execute(insert(records), list(rows))
                await connection.execute(addition, counted)
        except (IntegrityError, OperationalError) as error:
            # Where another process wrote meanwhile, SQLite refuses at once, or finds the rows there.
            raise IndexBusy(
                "the search index cannot be written: another process writes it, or its database fails"
            ) from error
        except SQLAlchemyError as error:
            raise IndexUnavailable("the search index cannot be written") from error

    async def prune(self, origin: str, minimum: int) -> None:
        """Forget the records of `origin` below its minimum index, and leave no copy of them behind.

        Raises:
            IndexUnavailable: if the database fails.
        """
        below = (records.c.origin == origin, records.c.position < minimum)
        upsert, addition = _upserts(self._engine.dialect.name)
        try:
            async with self._engine.begin() as connection:
                known = await connection.scalar(select(logs.c.size).where(logs.c.origin == origin))
                if known is None or known < minimum:
                    await connection.execute(upsert, {"origin": origin, "size": minimum})
                found = await connection.execute(select(records).where(*below))
                counted = _counts_of(count_rows(dict(row) for row in found.mappings()), -1)
                if counted:
                    await connection.execute(delete(records).where(*below))
                    await connection.execute(addition, counted)
                    await connection.execute(delete(tallies).where(tallies.c.count == 0))
            if counted:
                await self._forget_deleted()
        except OperationalError as error:
            raise IndexBusy(
                "the search index cannot be written: another process writes it, or its database fails"
            ) from error
        except SQLAlchemyError as error:
            raise IndexUnavailable("the search index cannot be written") from error

    async def analyze(self) -> None:
        """Let the database look at what it holds, so that it knows which of its indexes narrows most.

        Without, SQLite walked two million records to find one person's.

        Raises:
            IndexUnavailable: if that fails.
        """
        async with self.reading() as connection:
            if self._engine.dialect.name == "sqlite":
                await connection.exec_driver_sql(f"PRAGMA analysis_limit={ANALYSED_ROWS}")
            await connection.exec_driver_sql("ANALYZE")
            await connection.commit()

    async def clear(self) -> None:
        """Forget everything; the logs still have it."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(records))
            await connection.execute(delete(tallies))
            await connection.execute(delete(logs))
        await self._forget_deleted()

    async def _forget_deleted(self) -> None:
        """Let SQLite's write-ahead log go, in which rows stand from before they were overwritten."""
        if self._engine.dialect.name != "sqlite":
            return
        async with self._engine.connect() as connection:
            result = await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            if result.scalar():
                raise IndexUnavailable(
                    "the search index is being read, so that deleted rows cannot be overwritten yet; "
                    "make it again later with `bedside audit index rebuild`"
                )

    async def leaves(self, origin: str, start: int, count: int) -> list[dict[str, Any]]:
        """Return `count` rows of `origin` from position `start` on, in order."""
        wanted = (
            select(records)
            .where(records.c.origin == origin, records.c.position >= start)
            .order_by(records.c.position)
            .limit(count)
        )
        async with self.reading() as connection:
            return [dict(row) for row in (await connection.execute(wanted)).mappings()]

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for reading.

        Raises:
            IndexUnavailable: if the database fails meanwhile.
        """
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise IndexUnavailable("the search index cannot be read") from error


def _counts_of(counts: Counts, sign: int) -> list[dict[str, Any]]:
    return [
        {**dict(zip(TALLIED, key, strict=True)), "count": sign * count}
        for key, count in sorted(counts.items())
    ]


def _url(address: str, password: str | None) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise IndexUnavailable("the search index's address is not a URL") from error
    if url.drivername not in DRIVERS:
        raise IndexUnavailable("the search index is sqlite:///<path> or postgresql://user@host/name")
    if url.password is not None:
        raise IndexUnavailable("a password does not stand in the address; give it by reference")
    return url.set(drivername=DRIVERS[url.drivername][0], password=password)


def _migrate(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = Config()
    # The percent sign is special to alembic's configuration.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    command.upgrade(config, "head")


def _upserts(dialect: str) -> tuple[Any, Any]:
    """Return, in the dialect's own words, what keeps a log's size and what adds to a tally."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    size, addition = make(logs), make(tallies)
    return (
        size.on_conflict_do_update(index_elements=[logs.c.origin], set_={"size": size.excluded.size}),
        addition.on_conflict_do_update(
            index_elements=[tallies.c[name] for name in TALLIED],
            set_={"count": tallies.c.count + addition.excluded.count},
        ),
    )


def _as_cache(connection: Any, _: Engine) -> None:  # noqa: ANN401 a DBAPI connection has no type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # Losing the last rows in a crash costs nothing: `logs` says where to go on.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA cache_size=-65536")
    # What is deleted was pruned from its log: it must not stay in a free page.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()
