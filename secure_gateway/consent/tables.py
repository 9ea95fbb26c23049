"""The table of the consent registry: of people it holds pseudonyms only."""

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from policies import DataClass, Purpose
from secure_gateway.consent.grants import Grant


class Base(DeclarativeBase):
    """Root of the tables."""


class GrantRow(Base):
    """One grant; times in milliseconds since 1970, in UTC. Empty lists mean all."""

    __tablename__ = "grants"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), index=True)
    purposes: Mapped[list[str]] = mapped_column(JSON)
    models: Mapped[list[str]] = mapped_column(JSON)
    data_classes: Mapped[list[str]] = mapped_column(JSON)
    granted_by: Mapped[str] = mapped_column(String(128))
    record: Mapped[str] = mapped_column(String(160))
    granted_ms: Mapped[int] = mapped_column(BigInteger)
    begins_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    withdrawn_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    withdrawn_by: Mapped[str | None] = mapped_column(String(128), default=None)


def row_of(grant: Grant, record: str) -> dict[str, Any]:
    """Return the row of a grant that was recorded at `record`."""
    return {
        "id": str(grant.id),
        "subject": grant.subject,
        "purposes": sorted(grant.purposes),
        "models": sorted(grant.models),
        "data_classes": sorted(grant.data_classes),
        "granted_by": grant.granted_by,
        "record": record,
        "granted_ms": grant.granted_ms,
        "begins_ms": grant.begins_ms,
        "expires_ms": grant.expires_ms,
    }


def grant_of(row: Any) -> Grant:  # noqa: ANN401 a row of the table
    """Return what a row says."""
    return Grant(
        id=UUID(row.id),
        subject=row.subject,
        purposes=frozenset(map(Purpose, row.purposes)),
        models=frozenset(row.models),
        data_classes=frozenset(map(DataClass, row.data_classes)),
        granted_by=row.granted_by,
        record=row.record,
        granted_ms=row.granted_ms,
        begins_ms=row.begins_ms,
        expires_ms=row.expires_ms,
        withdrawn_ms=row.withdrawn_ms,
    )
