"""The coordinator's database: devices, codes, releases and jobs; of people it holds pseudonyms only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import JSON, URL, DateTime, Dialect, ForeignKey, String, TypeDecorator, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from coordinator.errors import StoreError

MIGRATIONS: Final = Path(__file__).parent / "migrations"


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no time zone, so it is taken off and put on again here."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what is stored."""
        del dialect
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what was stored."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Root of the tables."""


class Device(Base):
    """An enrolled device; `public_key` is raw Ed25519, in hexadecimal."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    public_key: Mapped[str] = mapped_column(String(64), unique=True)
    jurisdiction: Mapped[str] = mapped_column(String(6))
    enrolled: Mapped[datetime] = mapped_column(UtcTime)
    revoked: Mapped[bool] = mapped_column(default=False)
    subjects: Mapped[list["HeldSubject"]] = relationship(lazy="selectin", cascade="all")


class HeldSubject(Base):
    """A pseudonym whose data a device holds."""

    __tablename__ = "held_subjects"

    pseudonym: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)


class EnrolmentCode(Base):
    """A one-time code, stored as its SHA-256."""

    __tablename__ = "enrolment_codes"

    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    jurisdiction: Mapped[str] = mapped_column(String(6))
    subjects: Mapped[list[str]] = mapped_column(JSON)
    expires: Mapped[datetime] = mapped_column(UtcTime)
    used: Mapped[bool] = mapped_column(default=False)


class PublishedRelease(Base):
    """A release that was served or evaluated, and the SHA-256 of its model file."""

    __tablename__ = "releases"

    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[str] = mapped_column(String(18), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))


class Job(Base):
    """A federated job; `result` holds sums and metrics over the whole cohort, nothing less."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(18))
    principal: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(200), default=None)
    cohort_minimum: Mapped[int]
    cohort: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(UtcTime)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)


class Registry(Base):
    """One row: the serial of the device registry, which rises with every change."""

    __tablename__ = "registry"

    id: Mapped[int] = mapped_column(primary_key=True)
    serial: Mapped[int] = mapped_column(default=0)


class Store:
    """Sessions on one SQLite database; opened with `Store.open`."""

    def __init__(self, path: Path) -> None:
        url = URL.create("sqlite+aiosqlite", database=str(path))
        # An error of the database never quotes what was stored.
        self._engine = create_async_engine(url, hide_parameters=True)
        event.listen(self._engine.sync_engine, "connect", _durable)
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
        """Give a session whose changes are committed at the end, or not at all."""
        async with self._sessions() as session, session.begin():
            yield session

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


def _migrate(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = Config()
    # The percent sign is special to alembic's configuration.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = URL.create("sqlite", database=str(path))
    command.upgrade(config, "head")


def _durable(connection: Any, _: Engine) -> None:  # noqa: ANN401 a DBAPI connection has no type
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
