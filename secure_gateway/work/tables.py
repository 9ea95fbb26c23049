"""The tables of queued work, and what is known of a piece of work without opening it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ForeignKey, LargeBinary, String, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from audit.records import Problem


class WorkState(StrEnum):
    """Where work stands."""

    QUEUED = "queued"
    RUNNING = "running"
    IN_REVIEW = "in-review"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FETCHED = "fetched"


LIVE: Final = (
    WorkState.QUEUED,
    WorkState.RUNNING,
    WorkState.IN_REVIEW,
    WorkState.DONE,
    WorkState.FAILED,
)
"""States in which something is kept for the work; in the others only that it was there."""


class Work(Struct, frozen=True, kw_only=True):
    """What is known of a piece of work without opening it; times in UTC."""

    id: UUID
    principal: str
    state: WorkState
    submitted: datetime
    expires: datetime
    started: datetime | None = None
    finished: datetime | None = None
    attempts: int = 0
    postponed: int = 0
    problem: Problem | None = None


class Base(DeclarativeBase):
    """Root of the tables."""


class WorkRow(Base):
    """One piece of work; times in milliseconds since 1970, in UTC."""

    __tablename__ = "work"
    # Never reused, so that the oldest is always the one with the lowest.
    __table_args__ = ({"sqlite_autoincrement": True},)

    sequence: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    principal: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16), index=True)
    submitted_ms: Mapped[int]
    expires_ms: Mapped[int] = mapped_column(index=True)
    not_before_ms: Mapped[int]
    started_ms: Mapped[int | None] = mapped_column(default=None)
    finished_ms: Mapped[int | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    # Whether the run that is under way may leave something behind, so that it is not repeated.
    lasting: Mapped[bool] = mapped_column(default=False, server_default=false())
    postponed: Mapped[int] = mapped_column(default=0)
    size_bytes: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(32), default=None)


class SealedRow(Base):
    """Apart from the rest, so that changing a state does not rewrite megabytes."""

    __tablename__ = "sealed"

    work_id: Mapped[str] = mapped_column(ForeignKey("work.id"), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


COLUMNS: Final = (
    WorkRow.id,
    WorkRow.principal,
    WorkRow.state,
    WorkRow.submitted_ms,
    WorkRow.expires_ms,
    WorkRow.started_ms,
    WorkRow.finished_ms,
    WorkRow.attempts,
    WorkRow.postponed,
    WorkRow.problem,
)
"""What is read of a row: everything but what is sealed."""


def work_of(row: Any) -> Work:  # noqa: ANN401 a row of the columns above
    """Return what a row says."""
    return Work(
        id=UUID(row.id),
        principal=row.principal,
        state=WorkState(row.state),
        submitted=time_of(row.submitted_ms),
        expires=time_of(row.expires_ms),
        started=None if row.started_ms is None else time_of(row.started_ms),
        finished=None if row.finished_ms is None else time_of(row.finished_ms),
        attempts=row.attempts,
        postponed=row.postponed,
        problem=None if row.problem is None else Problem(row.problem),
    )


def time_of(milliseconds: int) -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
