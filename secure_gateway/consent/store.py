"""The consent registry: a database of grants that every replica of a site may share.

It is asked at every request about somebody, and nothing of its answers is remembered: a withdrawal
counts from the next request on, whichever replica took it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Select, event, func, insert, or_, select, update
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from secure_gateway.consent.grants import Grant, Standing, Use, standing
from secure_gateway.consent.tables import GrantRow, grant_of, row_of
from secure_gateway.errors import GatewayError

MIGRATIONS: Final = Path(__file__).parent / "migrations"
DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

GRANTS_MAX: Final = 100
"""How many grants of one person may count at once; they are all read at each of its requests."""


class ConsentUnavailable(GatewayError):
    """Raised when the registry's database cannot be used in time; nothing of it is quoted."""


class ConsentFull(GatewayError):
    """Raised when a person has too many grants already."""


class ConsentRegistry:
    """Keeps grants; each change is durable, and counts everywhere, when its method returns."""

    def __init__(self, url: URL, *, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        # An error of the database never quotes what was stored.
        self._engine = create_async_engine(url, hide_parameters=True)
        if url.get_backend_name() == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _durable)

    @classmethod
    async def open(
        cls,
        address: str,
        *,
        password: str | None = None,
        timeout_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> "ConsentRegistry":
        """Open the registry at `address`, `sqlite:///<path>` or `postgresql://user@host/name`.

        Raises:
            ConsentUnavailable: if the address is none of these, or the database cannot be used.
        """
        url = _url(address, password)
        try:
            try:
                await asyncio.to_thread(_migrate, url)
            except SQLAlchemyError:
                # Another replica may have been making the same tables at the same time.
                await asyncio.to_thread(_migrate, url)
        except (SQLAlchemyError, CommandError, OSError) as error:
            raise ConsentUnavailable(
                "the consent registry cannot be opened: its database is damaged, of a later Bedside, "
                "or does not answer"
            ) from error
        return cls(url, timeout_s=timeout_s, clock=clock)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    def now_ms(self) -> int:
        """Return the time by which grants begin and end."""
        return int(self._clock() * 1000)

    async def standing(self, subject: str, use: Use) -> Standing:
        """Return what is known of the person's consent to `use`, as it is now.

        Raises:
            ConsentUnavailable: if the database does not answer in time.
        """
        now_ms = self.now_ms()
        counting = _counting(subject, now_ms)
        async with self._begin() as connection:
            rows = (await connection.execute(counting)).all()
        return standing(map(grant_of, rows), use, now_ms)

    async def grants(self, subject: str) -> list[Grant]:
        """Return the newest of the person's grants, whatever became of them, newest first.

        Raises:
            ConsentUnavailable: if the database does not answer in time.
        """
        wanted = (
            select(*_COLUMNS)
            .where(GrantRow.subject == subject)
            .order_by(GrantRow.granted_ms.desc(), GrantRow.id.desc())
            .limit(GRANTS_MAX)
        )
        async with self._begin() as connection:
            return [grant_of(row) for row in await connection.execute(wanted)]

    async def to_withdraw(self, subject: str, grant: UUID | None) -> list[Grant]:
        """Return the person's grants that a withdrawal would end: this one, or all.

        Raises:
            ConsentUnavailable: if the database does not answer in time.
        """
        wanted = _ending(select(*_COLUMNS), subject, self.now_ms())
        if grant is not None:
            wanted = wanted.where(GrantRow.id == str(grant))
        async with self._begin() as connection:
            return [grant_of(row) for row in await connection.execute(wanted)]

    async def room(self, subject: str) -> None:
        """See that one more grant of the person can be kept.

        Raises:
            ConsentFull: if it cannot.
            ConsentUnavailable: if the database does not answer in time.
        """
        counted = select(func.count()).select_from(_counting(subject, self.now_ms()).subquery())
        async with self._begin() as connection:
            kept = (await connection.execute(counted)).scalar_one()
        if kept >= GRANTS_MAX:
            raise ConsentFull(f"{GRANTS_MAX} grants of this person are kept already")

    async def add(self, grant: Grant, record: str) -> None:
        """Keep a grant that was recorded at `record`: it counts from now on.

        Raises:
            ConsentUnavailable: if that cannot be done.
        """
        async with self._begin() as connection:
            await connection.execute(insert(GrantRow).values(**row_of(grant, record)))

    async def withdraw(self, grants: Iterable[UUID], principal: str) -> None:
        """End the named grants: they count no longer.

        Raises:
            ConsentUnavailable: if that cannot be done.
        """
        ended = (
            update(GrantRow)
            .where(GrantRow.id.in_([str(grant) for grant in grants]), GrantRow.withdrawn_ms.is_(None))
            .values(withdrawn_ms=self.now_ms(), withdrawn_by=principal)
        )
        async with self._begin() as connection:
            await connection.execute(ended)

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        """Give a transaction that is durable at the end, or undone."""
        try:
            async with asyncio.timeout(self._timeout_s), self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            # TimeoutError is an OSError.
            raise ConsentUnavailable("the consent registry's database cannot be used") from error


_COLUMNS: Final = tuple(GrantRow.__table__.columns)


def _counting(subject: str, now_ms: int) -> Select[Any]:
    """Select what can still count for or against the person's consent."""
    return select(*_COLUMNS).where(
        GrantRow.subject == subject,
        or_(GrantRow.withdrawn_ms.is_not(None), GrantRow.expires_ms > now_ms),
    )


def _ending(wanted: Select[Any], subject: str, now_ms: int) -> Select[Any]:
    """Narrow `wanted` to the person's grants that have not ended."""
    return wanted.where(
        GrantRow.subject == subject, GrantRow.withdrawn_ms.is_(None), GrantRow.expires_ms > now_ms
    )


def _url(address: str, password: str | None) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise ConsentUnavailable("the consent registry's address is not a URL") from error
    if url.drivername not in DRIVERS:
        raise ConsentUnavailable(
            "the consent registry is sqlite:///<path> or postgresql://user@host/name"
        )
    if url.password is not None:
        raise ConsentUnavailable("a password does not stand in the address; give it by reference")
    return url.set(drivername=DRIVERS[url.drivername], password=password)


def _migrate(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = Config()
    # The percent sign is special to alembic's configuration.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    command.upgrade(config, "head")


def _durable(connection: Any, _: Engine) -> None:  # noqa: ANN401 a DBAPI connection has no type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
