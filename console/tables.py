"""The console's own tables: who may sign in, who is signed in, and what they keep.

Of the people whose data records are about, nothing is here but pseudonyms in saved searches.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Root of the tables."""


class AccountRow(Base):
    """Somebody who may sign in; `secret` is the Argon2id hash of their password."""

    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    roles: Mapped[list[str]] = mapped_column(JSON)
    secret: Mapped[str] = mapped_column(String(255))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    changed_ms: Mapped[int] = mapped_column(BigInteger)


class SessionRow(Base):
    """Somebody who is signed in, under the SHA-256 of the cookie that only their browser has."""

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name", ondelete="CASCADE"), index=True)
    form_key: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int] = mapped_column(BigInteger)


class FailureRow(Base):
    """Failed sign-ins of an account or from an address, since `began_ms`."""

    __tablename__ = "failures"

    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    key: Mapped[str] = mapped_column(String(63), primary_key=True)
    count: Mapped[int]
    began_ms: Mapped[int] = mapped_column(BigInteger)
    locked_until_ms: Mapped[int] = mapped_column(BigInteger, default=0)


class ViewRow(Base):
    """A search that somebody keeps; it has no name but what it looks for."""

    __tablename__ = "views"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name", ondelete="CASCADE"), index=True)
    query: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_ms: Mapped[int] = mapped_column(BigInteger)
