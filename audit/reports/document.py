"""The report for programs: JSON with what is shown, every record's proof, and the checkpoints."""

import base64
from importlib.metadata import version
from typing import Any, Final

import msgspec
from msgspec import Struct

from audit.checkpoint import Checkpoint
from audit.minimum import MinimumIndex
from audit.reports.kind import Chart, Figure, Table
from audit.reports.report import Entry, Report
from audit.reports.words import clock, short

FORMAT: Final = "bedside-report/1"
MADE_BY: Final = f"bedside {version('bedside')}"


class Shown(Struct, frozen=True, kw_only=True):
    """What a report shows people; it follows from the records, and is left out where it is empty."""

    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]


def show(report: Report) -> Shown:
    """Return what `report` shows; a table without rows is kept only where it says so."""
    kind = report.kind
    return Shown(
        figures=tuple(kind.figures(report)),
        charts=tuple(kind.charts(report)),
        tables=tuple(table for table in kind.tables(report) if table.rows or table.empty),
    )


def to_json(report: Report, shown: Shown) -> bytes:
    """Return the JSON form: what is shown, every entry with its proof, and the checkpoints."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "made_by": MADE_BY,
        "kind": report.kind.name,
        "title": report.kind.title,
        "basis": report.kind.basis,
        "site": report.site,
        "created": report.created,
        "period": period_of(report),
        "filters": report.filters,
        "hours": report.hours,
        "notes": notes_of(report),
        "logs": [
            log_fields(checkpoint, verifier, report.pruned.get(checkpoint.origin))
            for checkpoint, verifier in zip(report.checkpoints, report.verifiers, strict=True)
        ],
        "shown": shown,
        "entries": [entry_fields(entry) for entry in report.entries],
    }
    return msgspec.json.format(msgspec.json.encode(fields))


def log_fields(
    checkpoint: Checkpoint, verifier: str, minimum: MinimumIndex | None = None
) -> dict[str, Any]:
    """Return a log's head: what was signed, and the note that signs it; also its minimum index's."""
    pruned = {} if minimum is None else {"minimum_index": minimum.note.decode()}
    return {
        "origin": checkpoint.origin,
        "verifier": verifier,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "checkpoint": checkpoint.note.decode(),
        **pruned,
    }


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Return a record, its bytes as they are in the log, and its inclusion proof."""
    return {
        "origin": entry.origin,
        "index": entry.index,
        "record": msgspec.Raw(entry.leaf),
        "leaf": base64.b64encode(entry.leaf).decode(),
        "proof": [base64.b64encode(hash_).decode() for hash_ in entry.proof],
    }


def period_of(report: Report) -> str:
    """Return the period in words; where it is open, what the records span."""
    since, until = report.period
    return f"{clock(since)} to {clock(until)} UTC"


def notes_of(report: Report) -> list[str]:
    """Return what the report cannot show: first of all what was pruned of its logs."""
    since = report.filters.since
    notes = []
    for origin, minimum in report.pruned.items():
        gone = (
            f"{origin} begins at record {minimum.index}: those before were past their retention and are"
            f" gone for good, by the decision recorded as {minimum.decision}."
        )
        if minimum.newest is None or (since is not None and since > minimum.newest):
            notes.append(f"{gone} None of them lies in the period of this report.")
        else:
            notes.append(
                f"{gone} The newest is of {clock(minimum.newest)} UTC: this report's period reaches"
                " back to records that no longer exist, and of that time it is not complete."
            )
    return [*notes, *report.kind.notes]


def filters_of(report: Report) -> str:
    """Return the filters in words."""
    filters = report.filters
    parts = []
    if filters.subject is not None:
        parts.append(f"subject {short(filters.subject)}")
    if filters.principal is not None:
        parts.append(f"principal {filters.principal}")
    if filters.outcome is not None:
        parts.append(f"outcome {filters.outcome.value}")
    return ", ".join(parts) or "none"
