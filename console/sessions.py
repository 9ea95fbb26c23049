"""Who is signed in: sessions kept here, of which a browser holds nothing but a random name.

A session ends when its owner did nothing for a while (45 CFR 164.312(a)(2)(iii)), some hours after
sign-in whatever they did, and at once when the account is changed.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from sqlalchemy import ColumnElement, delete, func, or_, select

from console.accounts import Account
from console.store import Store
from console.tables import AccountRow, SessionRow
from policies import Role

TOKEN_BYTES: Final = 32
# What somebody does is written down no more often than this.
SEEN_EVERY_MS: Final = 15_000


class Session(Struct, frozen=True, kw_only=True):
    """One signed-in browser; `form_key` is what its forms must carry."""

    account: Account
    form_key: str
    ends_in_s: int


class Sessions:
    """Begins, finds and ends sessions."""

    def __init__(
        self,
        store: Store,
        *,
        idle_s: int,
        lifetime_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._idle_ms = idle_s * 1000
        self._lifetime_ms = lifetime_s * 1000
        self._clock = clock

    async def begin(self, account: str, *, instead_of: str | None = None) -> str:
        """Return the token of a session that begins now; the one before it ends."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        now = self._now_ms()
        async with self._store.session() as session:
            if instead_of is not None:
                await session.execute(delete(SessionRow).where(_named(instead_of)))
            await session.execute(
                delete(SessionRow).where(
                    or_(
                        SessionRow.seen_ms < now - self._idle_ms,
                        SessionRow.created_ms < now - self._lifetime_ms,
                    )
                )
            )
            session.add(
                SessionRow(
                    token_hash=_hash(token),
                    account=account,
                    form_key=secrets.token_urlsafe(TOKEN_BYTES),
                    created_ms=now,
                    seen_ms=now,
                )
            )
        return token

    async def find(self, token: str, *, active: bool) -> Session | None:
        """Return the session of `token` if it has not ended.

        `active` says that its owner did something, rather than a page that refreshes itself.
        """
        now = self._now_ms()
        async with self._store.session() as session:
            row = await session.get(SessionRow, _hash(token))
            if row is None:
                return None
            left = min(row.seen_ms + self._idle_ms, row.created_ms + self._lifetime_ms) - now
            account = await session.get(AccountRow, row.account)
            if left <= 0 or account is None or account.disabled:
                await session.delete(row)
                return None
            if active and now - row.seen_ms >= SEEN_EVERY_MS:
                row.seen_ms = now
            return Session(
                account=Account(
                    name=account.name, roles=frozenset(map(Role, account.roles)), disabled=False
                ),
                form_key=row.form_key,
                ends_in_s=left // 1000,
            )

    async def end(self, token: str) -> None:
        """End the session of `token`."""
        async with self._store.session() as session:
            await session.execute(delete(SessionRow).where(_named(token)))

    async def end_all(self, account: str) -> None:
        """End every session of `account`, on whichever browser."""
        async with self._store.session() as session:
            await session.execute(delete(SessionRow).where(SessionRow.account == account))

    async def count(self, account: str) -> int:
        """Return how many sessions of `account` have not ended."""
        now = self._now_ms()
        held = select(func.count()).where(
            SessionRow.account == account,
            SessionRow.seen_ms > now - self._idle_ms,
            SessionRow.created_ms > now - self._lifetime_ms,
        )
        async with self._store.session() as session:
            return await session.scalar(held) or 0

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _named(token: str) -> ColumnElement[bool]:
    return SessionRow.token_hash == _hash(token)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
