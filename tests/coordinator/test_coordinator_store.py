import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from coordinator.errors import StoreError
from coordinator.store import Base, EnrolmentCode, Store


async def test_migrations_make_exactly_the_tables_of_the_models(tmp_path):
    path = tmp_path / "coordinator.sqlite"
    await (await Store.open(path)).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


async def test_a_database_is_opened_again_with_what_it_held(tmp_path):
    path = tmp_path / "with a % and spaces" / "coordinator.sqlite"
    await (await Store.open(path)).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE registry SET serial = 7")
    await (await Store.open(path)).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT serial FROM registry").fetchall() == [(7,)]


async def test_a_damaged_database_is_refused_with_its_path(tmp_path):
    path = tmp_path / "coordinator.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"coordinator\.sqlite is damaged"):
        await Store.open(path)


async def test_a_database_of_a_later_bedside_is_refused(tmp_path):
    path = tmp_path / "coordinator.sqlite"
    await (await Store.open(path)).close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="later Bedside"):
        await Store.open(path)


async def test_an_error_of_the_database_quotes_nothing_that_was_stored(store):
    with pytest.raises(IntegrityError) as caught:
        async with store.session() as session:
            session.add(EnrolmentCode(code_hash="canary-7f3a", jurisdiction="US", subjects=[]))
    assert "canary" not in str(caught.value)


async def test_half_a_change_is_not_kept(store):
    async def interrupted() -> None:
        async with store.session() as session:
            session.add(_code("a"))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await interrupted()
    async with store.session() as session:
        assert await session.get(EnrolmentCode, "a") is None


def _code(name: str) -> EnrolmentCode:
    return EnrolmentCode(
        code_hash=name, jurisdiction="US", subjects=[], expires=datetime.now(UTC), used=False
    )
