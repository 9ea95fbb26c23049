"""Stops guessing: after some wrong passwords an account, or an address, is refused for a while.

An attempt is counted before its password is looked at, so that many at once are no way round. Names and
addresses are kept under a keyed hash: people type the wrong thing into the wrong field.
"""

import hmac
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from sqlalchemy import Delete, delete

from console.store import Store
from console.tables import FailureRow

HIDDEN_DIGITS: Final = 40


class Kind(StrEnum):
    """What is locked."""

    ACCOUNT = "account"
    ADDRESS = "address"


class Lockout:
    """Counts failures of accounts and addresses, durably."""

    def __init__(
        self,
        store: Store,
        key: bytes,
        *,
        account_failures: int,
        address_failures: int,
        lockout_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._key = key
        self._limits = {Kind.ACCOUNT: account_failures, Kind.ADDRESS: address_failures}
        self._lockout_ms = lockout_s * 1000
        self._clock = clock

    async def attempt(self, account: str, address: str) -> Kind | None:
        """Count an attempt as failed, until `succeed` says otherwise; return what is locked.

        Nothing is counted while something is locked: only the wait helps.
        """
        now = int(self._clock() * 1000)
        keys = (
            (Kind.ADDRESS, self._hidden(Kind.ADDRESS, address)),
            (Kind.ACCOUNT, self._hidden(Kind.ACCOUNT, account)),
        )
        async with self._store.session() as session:
            rows = []
            for kind, key in keys:
                row = await session.get(FailureRow, (kind.value, key))
                if row is not None and row.locked_until_ms > now:
                    return kind
                if row is None:
                    row = FailureRow(kind=kind.value, key=key, count=0, began_ms=now, locked_until_ms=0)
                    session.add(row)
                elif now - row.began_ms >= self._lockout_ms:
                    row.count, row.began_ms = 0, now
                rows.append((kind, row))
            for kind, row in rows:
                row.count += 1
                if row.count >= self._limits[kind]:
                    row.locked_until_ms = now + self._lockout_ms
        return None

    async def locked(self, account: str, address: str) -> Kind | None:
        """Return what is locked now."""
        now = int(self._clock() * 1000)
        async with self._store.session() as session:
            for kind, text in ((Kind.ADDRESS, address), (Kind.ACCOUNT, account)):
                row = await session.get(FailureRow, (kind.value, self._hidden(kind, text)))
                if row is not None and row.locked_until_ms > now:
                    return kind
        return None

    async def succeed(self, account: str, address: str) -> None:
        """Take back the attempt that was right; an account's failures before it are forgotten too."""
        async with self._store.session() as session:
            await session.execute(self._of(account))
            row = await session.get(
                FailureRow, (Kind.ADDRESS.value, self._hidden(Kind.ADDRESS, address))
            )
            if row is not None:
                # Somebody's own account must not make an address free to guess at others.
                row.count = max(0, row.count - 1)
                row.locked_until_ms = 0

    async def unlock(self, account: str) -> None:
        """Forget the failures of an account."""
        async with self._store.session() as session:
            await session.execute(self._of(account))

    def _of(self, account: str) -> Delete:
        return delete(FailureRow).where(
            FailureRow.kind == Kind.ACCOUNT.value,
            FailureRow.key == self._hidden(Kind.ACCOUNT, account),
        )

    def _hidden(self, kind: Kind, text: str) -> str:
        message = f"{kind.value}:{text}".encode(errors="surrogateescape")
        return hmac.digest(self._key, message, "sha256").hex()[:HIDDEN_DIGITS]
