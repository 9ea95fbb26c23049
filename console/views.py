"""Saved searches: each officer's own."""

import time
from uuid import uuid4

import msgspec
from msgspec import Struct
from sqlalchemy import delete, func, select

from console.errors import ConsoleError
from console.query import Query
from console.store import Store
from console.tables import ViewRow

VIEWS_MAX = 30


class ViewsFull(ConsoleError):
    """Raised when somebody keeps as many searches as they may."""


class View(Struct, frozen=True, kw_only=True):
    """A search that somebody keeps."""

    id: str
    query: Query


class Views:
    """Keeps searches."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, account: str) -> list[View]:
        """Return somebody's searches, oldest first."""
        async with self._store.session() as session:
            rows = await session.scalars(
                select(ViewRow).where(ViewRow.account == account).order_by(ViewRow.created_ms)
            )
            return [View(id=row.id, query=msgspec.convert(row.query, Query)) for row in rows]

    async def add(self, account: str, query: Query) -> None:
        """Keep a search; one that is kept already stays.

        Raises:
            ViewsFull: if no more can be kept.
        """
        fields = msgspec.to_builtins(query)
        async with self._store.session() as session:
            held = select(func.count()).select_from(ViewRow).where(ViewRow.account == account)
            if (await session.scalar(held) or 0) >= VIEWS_MAX:
                raise ViewsFull(f"{VIEWS_MAX} searches are kept already; let go of one first")
            rows = await session.scalars(select(ViewRow).where(ViewRow.account == account))
            if any(row.query == fields for row in rows):
                return
            created = int(time.time() * 1000)
            session.add(ViewRow(id=str(uuid4()), account=account, query=fields, created_ms=created))

    async def remove(self, account: str, view: str) -> None:
        """Let go of one of somebody's own searches."""
        async with self._store.session() as session:
            await session.execute(delete(ViewRow).where(ViewRow.account == account, ViewRow.id == view))
