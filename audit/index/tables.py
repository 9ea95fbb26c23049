"""The tables of the search index, and what a record becomes in them.

Everything here is copied from a log and can be made again from it. `leaf` is the record's canonical
bytes; the other columns are the parts of it that a search looks at.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

from audit.records import AnyRecord, Flag, RefusalsRecord, RequestRecord, ReviewRecord
from audit.reports.sent import home_and_place, ran

metadata: Final = MetaData()

logs: Final = Table(
    "logs",
    metadata,
    Column("origin", String(128), primary_key=True),
    Column("size", BigInteger, nullable=False),
)
"""How many records of each log are in the index."""

records: Final = Table(
    "records",
    metadata,
    Column("origin", String(128), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("type", String(16), nullable=False),
    Column("id", String(36), nullable=False),
    Column("action", String(32)),
    Column("outcome", String(16)),
    Column("principal", String(128)),
    Column("subject", String(64)),
    Column("model", String(128)),
    Column("data_class", String(32)),
    Column("jurisdiction", String(6)),
    Column("purpose", String(16)),
    Column("placement", String(128)),
    Column("problem", String(32)),
    Column("place", String(6)),
    Column("break_glass", Boolean, nullable=False),
    Column("stands_for", BigInteger, nullable=False),
    Column("reference", String(160)),
    Column("about", String(160)),
    Column("leaf", LargeBinary, nullable=False),
    PrimaryKeyConstraint("origin", "position"),
    # Every search is in order of time; those that narrow it most have an index of their own.
    Index("ix_records_time", "time_us", "origin", "position"),
    Index("ix_records_origin", "origin", "time_us"),
    Index("ix_records_id", "id"),
    Index("ix_records_subject", "subject", "time_us"),
    Index("ix_records_principal", "principal", "time_us"),
    Index("ix_records_outcome", "outcome", "time_us"),
    Index("ix_records_break_glass", "break_glass", "time_us"),
    Index("ix_records_model", "model", "time_us"),
    Index("ix_records_type", "type", "time_us"),
    Index("ix_records_about", "about"),
    Index("ix_records_action", "action", "time_us"),
    Index("ix_records_data_class", "data_class", "time_us"),
    Index("ix_records_jurisdiction", "jurisdiction", "time_us"),
    Index("ix_records_purpose", "purpose", "time_us"),
    Index("ix_records_placement", "placement", "time_us"),
    Index("ix_records_problem", "problem", "time_us"),
    Index("ix_records_place", "place", "time_us"),
    # Data of one jurisdiction that ran in another is asked for most, and there is least of it.
    Index("ix_records_jurisdiction_place", "jurisdiction", "place", "time_us"),
)
"""One row for each record; `time_us` is microseconds since 1970, in UTC.

`reference` is `<origin>#<position>`, for records that others may be about, and `about` that of the
record that a review is about. `place` is the jurisdiction where a model ran on a subject's data, `?`
where that is unknown. `stands_for` is how many requests the record is of.
"""

TALLIED: Final = (
    "hour",
    "origin",
    "type",
    "outcome",
    "break_glass",
    "jurisdiction",
    "place",
    "model",
)

tallies: Final = Table(
    "tallies",
    metadata,
    Column("hour", BigInteger, nullable=False),
    Column("origin", String(128), nullable=False),
    Column("type", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("break_glass", Boolean, nullable=False),
    Column("jurisdiction", String(6), nullable=False),
    Column("place", String(6), nullable=False),
    Column("model", String(128), nullable=False),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint(*TALLIED),
)
"""How many there are of each kind, by the hour: what charts are drawn from, however many records.

`hour` is hours since 1970. What a record does not say is empty.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_COPIED: Final = (
    "action",
    "outcome",
    "principal",
    "subject",
    "model",
    "data_class",
    "jurisdiction",
    "purpose",
    "placement",
    "problem",
)


def microseconds(time: datetime) -> int:
    """Return a time as microseconds since 1970, in UTC, exactly."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds_: int) -> datetime:
    """Return the time that `microseconds` made into a number."""
    return _EPOCH + microseconds_ * _MICROSECOND


def reference_of(origin: str, position: int) -> str:
    """Return what a record is called: `<origin>#<position>`."""
    return f"{origin}#{position}"


def row_of(origin: str, position: int, leaf: bytes, record: AnyRecord) -> dict[str, Any]:
    """Return the row of the record at `position` of the log `origin`."""
    flags: Sequence[Flag] = record.flags if isinstance(record, RequestRecord) else ()
    break_glass = Flag.BREAK_GLASS in flags
    about = None
    if isinstance(record, ReviewRecord):
        about = reference_of(record.reviewed_log, record.reviewed_number)
    row: dict[str, Any] = {name: _text(getattr(record, name, None)) for name in _COPIED}
    return {
        **row,
        "origin": origin,
        "position": position,
        "time_us": microseconds(record.time),
        "type": type(record).__struct_config__.tag,
        "id": str(record.id),
        "place": home_and_place(record)[1]
        if isinstance(record, RequestRecord) and ran(record)
        else None,
        "break_glass": break_glass,
        "stands_for": record.count if isinstance(record, RefusalsRecord) else 1,
        "reference": reference_of(origin, position) if break_glass else None,
        "about": about,
        "leaf": leaf,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
