"""The report for people: a PDF set by Typst from a template and data, never from pasted text."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import typst

from audit.records import (
    AnyRecord,
    DeviceRecord,
    Flag,
    JobRecord,
    Outcome,
    ReleaseRecord,
    ReportRecord,
    RequestRecord,
)
from audit.reports.access import AccessReport, Entry, Filters, describe
from audit.reports.timeline import timeline

TEMPLATE: Final = Path(__file__).parent / "access.typ"
PSEUDONYM_SHOWN: Final = 12
BARS_SHOWN: Final = 10


def render(report: AccessReport) -> bytes:
    """Return the report as PDF/A-2a (ISO 19005-2); the same report gives the same bytes."""
    document: bytes = typst.compile(
        str(TEMPLATE),
        sys_inputs={"report": json.dumps(to_data(report))},
        ignore_system_fonts=True,
        pdf_standards="a-2a",
        timestamp=int(report.created.timestamp()),
    )
    return document


def to_data(report: AccessReport) -> dict[str, Any]:
    """Return what the template shows; texts are data to it, never markup."""
    since, until = _period(report)
    requests = [entry.record for entry in report.requests if isinstance(entry.record, RequestRecord)]
    unit, buckets = timeline(requests, since, until)
    return {
        "site": report.site,
        "created": _time_zone(report.created),
        "date": {
            part: getattr(report.created.astimezone(UTC), part)
            for part in ("year", "month", "day", "hour", "minute", "second")
        },
        "period": f"{_time_zone(since)} to {_time_zone(until)}",
        "filters": _filters(report),
        "completeness": _completeness(report),
        "logs": [
            {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "key": verifier,
            }
            for checkpoint, verifier in zip(report.checkpoints, report.verifiers, strict=True)
        ],
        "totals": {
            "requests": len(requests),
            "served": report.count(Outcome.SERVED),
            "refused": report.count(Outcome.REFUSED),
            "failed": report.count(Outcome.FAILED),
            "review": len(report.flagged(Flag.BREAK_GLASS)),
            "subjects": len({record.subject for record in requests} - {None}),
        },
        "timeline_unit": unit.value,
        "timeline": msgspec.to_builtins(buckets) if requests else [],
        "placements": _most(report.by_placement()),
        "policies": _most(report.by_policy()),
        "residency": _residency(report),
        "review": [_request_row(entry) for entry in report.flagged(Flag.BREAK_GLASS)],
        "refused": [_request_row(entry) for entry in report.refused()],
        "requests": [_request_row(entry) for entry in report.requests],
        "other": [_other_row(entry) for entry in report.events],
    }


def _period(report: AccessReport) -> tuple[datetime, datetime]:
    """Return the period asked for; where it is open, what the records span."""
    times = [entry.record.time for entry in report.entries]
    since = report.filters.since or min(times, default=report.created)
    until = report.filters.until or max(times, default=report.created)
    return since, until


def _completeness(report: AccessReport) -> str:
    if report.filters == Filters():
        return "It shows every record of these logs up to their checkpoints."
    return "It shows every record of these logs that lies in the period and passes the filters."


def _most(counts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the largest counts, and the rest as one."""
    if len(counts) <= BARS_SHOWN:
        return counts
    rest = counts[BARS_SHOWN - 1 :]
    return [*counts[: BARS_SHOWN - 1], (f"{len(rest)} others", sum(number for _, number in rest))]


def _residency(report: AccessReport) -> list[tuple[str, str, int]]:
    """Return the report's residency counts with all devices as one: each holds its own data."""
    counts: Counter[tuple[str, str]] = Counter()
    devices: Counter[str] = Counter()
    for home, placement, number in report.residency():
        on_device = placement.startswith("device:")
        devices[home] += on_device
        counts[home, "" if on_device else placement] += number
    return [
        (home, place or f"devices that hold the data ({devices[home]})", number)
        for (home, place), number in sorted(counts.items())
    ]


def _filters(report: AccessReport) -> str:
    filters = report.filters
    parts = []
    if filters.subject is not None:
        parts.append(f"subject {_short(filters.subject)}")
    if filters.principal is not None:
        parts.append(f"principal {filters.principal}")
    if filters.outcome is not None:
        parts.append(f"outcome {filters.outcome.value}")
    return ", ".join(parts) or "none"


def _request_row(entry: Entry) -> dict[str, str]:
    record = entry.record
    if not isinstance(record, RequestRecord):
        message = "a request's row is made from a request"
        raise TypeError(message)
    subject = _short(record.subject) if record.subject else None
    facts = (subject, record.data_class, record.jurisdiction, record.purpose)
    return {
        "where": _where(entry),
        "time": _time(record.time),
        "action": record.action.value,
        "principal": _breakable(record.principal or "not identified"),
        "roles": ", ".join(record.roles),
        "model": f"{record.model} v{record.model_version or '?'}" if record.model else "",
        "about": _together(" ".join(fact for fact in facts if fact)),
        "placement": _breakable(record.placement or ""),
        "outcome": record.outcome.value,
        "problem": record.problem.value if record.problem else "",
        "policies": ", ".join(record.policies),
        "obligations": ", ".join(record.obligations),
        "flags": ", ".join(flag.value for flag in record.flags),
    }


def _other_row(entry: Entry) -> dict[str, str]:
    record = entry.record
    return {
        "where": _where(entry),
        "time": _time(record.time),
        "event": describe(record),
        "about": _about(record),
        "principal": _breakable(getattr(record, "principal", None) or ""),
    }


def _about(record: AnyRecord) -> str:
    match record:
        case JobRecord():
            cohort = f"cohort {record.cohort} (minimum {record.cohort_minimum})"
            return f"{record.model} v{record.model_version}, {cohort}"
        case DeviceRecord():
            noun = "subject" if record.subjects == 1 else "subjects"
            return f"{record.device}, {record.subjects} {noun}"
        case ReleaseRecord():
            return f"{record.model} v{record.model_version}, SHA-256 {_short(record.model_digest)}"
        case ReportRecord():
            return record.kind
        case _:
            return ""


def _where(entry: Entry) -> str:
    return f"{entry.origin.rpartition('/')[2]}#{entry.index}"


def _breakable(name: str) -> str:
    # A zero-width space lets a long identifier break in a narrow column.
    return name.replace(":", ":\u200b").replace("/", "/\u200b")


def _together(codes: str) -> str:
    # A no-break hyphen keeps a code such as US-CA whole.
    return codes.replace("-", "\u2011")


def _short(pseudonym: str) -> str:
    return f"{pseudonym[:PSEUDONYM_SHOWN]}\u2026"


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _time_zone(time: datetime) -> str:
    return f"{_time(time)} UTC"
