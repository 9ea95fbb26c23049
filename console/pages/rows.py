"""Records as rows of a table, the same wherever they are listed."""

from collections.abc import Iterable

from msgspec import Struct

from audit.index import Hit
from audit.records import ConsoleRecord, RequestRecord
from console.words import clock, details_of, event_of, outcome_of, replica, short, tone_of


class Row(Struct, frozen=True, kw_only=True):
    """One record of a list; what it does not say is empty."""

    path: str
    name: str
    reference: str
    time: str
    iso: str
    event: str
    details: str
    who: str
    roles: str
    subject: str
    subject_path: str
    subject_short: str
    facts: str
    place: str
    outcome: str
    tone: str
    because: str
    flags: tuple[str, ...]


def row_of(hit: Hit) -> Row:
    """Return the row of a record."""
    record = hit.record
    asked = record if isinstance(record, RequestRecord) else None
    subject = getattr(record, "subject", None) or ""
    outcome = outcome_of(record)
    problem = getattr(record, "problem", None)
    facts = (asked.data_class, asked.jurisdiction, asked.purpose) if asked else ()
    own = isinstance(record, ConsoleRecord)
    return Row(
        path=path_of(hit.origin, hit.position),
        name=f"{replica(hit.origin)}#{hit.position}",
        reference=f"{hit.origin}#{hit.position}",
        time=clock(record.time),
        iso=f"{record.time:%Y-%m-%dT%H:%M:%SZ}",
        event=event_of(record),
        details=details_of(record),
        who=getattr(record, "principal", None) or ("" if own else "not identified"),
        roles=", ".join(getattr(record, "roles", ())),
        subject=subject,
        subject_path=f"/subjects/{subject}" if subject else "",
        subject_short=short(subject),
        facts=" \u00b7 ".join(filter(None, facts)),
        place=(asked.placement or "") if asked else "",
        outcome=outcome,
        tone=tone_of(outcome),
        because=problem.value if problem else ", ".join(asked.policies if asked else ()),
        flags=tuple(flag.value for flag in asked.flags) if asked else (),
    )


def rows_of(hits: Iterable[Hit]) -> tuple[Row, ...]:
    """Return the rows of records."""
    return tuple(map(row_of, hits))


def path_of(origin: str, position: int | str) -> str:
    """Return where a record is shown."""
    return f"/records/{origin}/{position}"


def path_to(reference: str) -> str:
    """Return where the record that is called `<origin>#<position>` is shown."""
    return path_of(*reference.rsplit("#", 1))
