"""Who may sign in to the console: accounts with a password and roles, made by the site's IT.

Passwords are kept as Argon2id hashes (RFC 9106). Their rules are those of NIST SP 800-63B-4 for a
password that is the only factor: 15 characters at least, of any kind, and no rules of composition.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct
from sqlalchemy import delete, select

from console.errors import AccountError
from console.store import Store
from console.tables import AccountRow, SessionRow
from policies import Role

PASSWORD_LEAST: Final = 15
PASSWORD_MOST: Final = 256
# Each hash takes 64 MiB for a twentieth of a second: many at once would wear the console down.
HASHES_AT_ONCE: Final = 2

# The same as a token's: a name means one person, whichever way they came in.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")


class Account(Struct, frozen=True, kw_only=True):
    """Somebody who may sign in, unless `disabled`."""

    name: str
    roles: frozenset[Role]
    disabled: bool


class Accounts:
    """Adds, changes and recognises accounts."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._hasher = PasswordHasher()
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE)
        # What an unknown name's password is compared with, so that it takes as long as a known one's.
        self._nobody = self._hasher.hash("nobody has this password")

    async def find(self, name: str) -> Account | None:
        """Return the account called `name`, or None."""
        if not NAME.fullmatch(name):
            return None
        async with self._store.session() as session:
            row = await session.get(AccountRow, name)
            return None if row is None else _account(row)

    async def list(self) -> list[Account]:
        """Return every account, by name."""
        async with self._store.session() as session:
            rows = await session.scalars(select(AccountRow).order_by(AccountRow.name))
            return [_account(row) for row in rows]

    async def add(self, name: str, roles: Iterable[Role], password: str) -> None:
        """Add an account.

        Raises:
            AccountError: if the name is none, is taken, or the password is not good enough.
        """
        if not NAME.fullmatch(name):
            raise AccountError(
                "an account's name is 1 to 63 lower-case letters, digits, '.', '_', '@' or '-'"
            )
        given = sorted(set(roles))
        if not given:
            raise AccountError("an account needs one role at least")
        check_password(name, password)
        secret = await self._hash(password)
        async with self._store.session() as session:
            if await session.get(AccountRow, name) is not None:
                raise AccountError(f"there is an account {name} already")
            now = self._now_ms()
            session.add(
                AccountRow(
                    name=name,
                    roles=[role.value for role in given],
                    secret=secret,
                    disabled=False,
                    created_ms=now,
                    changed_ms=now,
                )
            )

    async def change(
        self,
        name: str,
        *,
        password: str | None = None,
        roles: Iterable[Role] | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Change an account; whoever is signed in with it no longer is.

        Raises:
            AccountError: if there is no such account, or the password is not good enough.
        """
        secret = None
        if password is not None:
            check_password(name, password)
            secret = await self._hash(password)
        async with self._store.session() as session:
            row = await session.get(AccountRow, name)
            if row is None:
                raise AccountError(f"there is no account {name}")
            if secret is not None:
                row.secret = secret
            if roles is not None:
                row.roles = sorted({role.value for role in roles})
            if disabled is not None:
                row.disabled = disabled
            row.changed_ms = self._now_ms()
            await session.execute(delete(SessionRow).where(SessionRow.account == name))

    async def recognise(self, name: str, password: str) -> Account | None:
        """Return the account if the password is its own and it may sign in; others take as long."""
        row = None
        if NAME.fullmatch(name):
            async with self._store.session() as session:
                row = await session.get(AccountRow, name)
        known = self._nobody if row is None else row.secret
        async with self._turns:
            right = await asyncio.to_thread(self._verify, known, password[:PASSWORD_MOST])
        if row is None or not right or row.disabled:
            return None
        if self._hasher.check_needs_rehash(row.secret):
            secret = await self._hash(password)
            async with self._store.session() as session:
                found = await session.get(AccountRow, name)
                if found is not None and found.secret == row.secret:
                    found.secret = secret
        return _account(row)

    async def _hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    def _verify(self, secret: str, password: str) -> bool:
        try:
            return self._hasher.verify(secret, password)
        except (VerificationError, InvalidHashError):
            return False

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def check_password(name: str, password: str) -> None:
    """See that a password is good enough for the account `name`.

    Raises:
        AccountError: if it is not; the message says what is asked for.
    """
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise AccountError(f"a password has {PASSWORD_LEAST} to {PASSWORD_MOST} characters")
    if len(set(password)) < 5 or (len(name) > 3 and name in password.lower()):
        raise AccountError("a password repeats neither a few characters nor the account's name")


def _account(row: AccountRow) -> Account:
    return Account(name=row.name, roles=frozenset(map(Role, row.roles)), disabled=row.disabled)
