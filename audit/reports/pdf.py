"""The report for people: a PDF set by Typst from a template and data, never from pasted text."""

import json
from pathlib import Path
from typing import Any, Final

import typst

from audit.records import DeviceRecord, Flag, JobRecord, Outcome, ReleaseRecord, RequestRecord
from audit.reports.access import AccessReport, Entry, describe

TEMPLATE: Final = Path(__file__).parent / "access.typ"
PSEUDONYM_SHOWN: Final = 12


def render(report: AccessReport) -> bytes:
    """Return the report as PDF."""
    data = json.dumps(to_data(report))
    document: bytes = typst.compile(str(TEMPLATE), sys_inputs={"report": data})
    return document


def to_data(report: AccessReport) -> dict[str, Any]:
    """Return what the template shows; texts are data to it, never markup."""
    times = [entry.record.time for entry in report.entries]
    since = report.filters.since or min(times, default=report.created)
    until = report.filters.until or max(times, default=report.created)
    return {
        "site": report.site,
        "created": _time(report.created),
        "period": f"{_time(since)} to {_time(until)}",
        "filters": _filters(report),
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
            "requests": len(report.requests),
            "served": report.count(Outcome.SERVED),
            "refused": report.count(Outcome.REFUSED),
            "failed": report.count(Outcome.FAILED),
            "review": len(report.flagged(Flag.BREAK_GLASS)),
            "subjects": len(
                {getattr(entry.record, "subject", None) for entry in report.requests} - {None}
            ),
        },
        "placements": report.by_placement(),
        "policies": report.by_policy()[:12],
        "residency": report.residency(),
        "review": [_request_row(entry) for entry in report.flagged(Flag.BREAK_GLASS)],
        "refused": [_request_row(entry) for entry in report.refused()],
        "requests": [_request_row(entry) for entry in report.requests],
        "other": [
            _other_row(entry) for entry in report.entries if not isinstance(entry.record, RequestRecord)
        ],
    }


def _filters(report: AccessReport) -> str:
    filters = report.filters
    parts = []
    if filters.subject is not None:
        parts.append(f"subject {_short(filters.subject)}")
    if filters.principal is not None:
        parts.append(f"principal {filters.principal}")
    return ", ".join(parts) or "none"


def _request_row(entry: Entry) -> dict[str, str]:
    record = entry.record
    if not isinstance(record, RequestRecord):
        message = "a request's row is made from a request"
        raise TypeError(message)
    return {
        "where": f"{entry.origin.rpartition('/')[2]}#{entry.index}",
        "time": _time(record.time),
        "action": record.action.value,
        "principal": _breakable(record.principal or "unknown"),
        "roles": ", ".join(record.roles),
        "subject": _short(record.subject) if record.subject else "",
        "model": f"{record.model} v{record.model_version}" if record.model else "",
        "facts": " ".join(filter(None, (record.data_class, record.jurisdiction, record.purpose))),
        "placement": _breakable(record.placement or ""),
        "outcome": record.outcome.value,
        "problem": record.problem.value if record.problem else "",
        "policies": ", ".join(record.policies),
        "flags": ", ".join(flag.value for flag in record.flags),
    }


def _other_row(entry: Entry) -> dict[str, str]:
    record = entry.record
    about = ""
    if isinstance(record, JobRecord):
        about = f"{record.model} v{record.model_version}, cohort {record.cohort}"
        about += f" (minimum {record.cohort_minimum})"
    elif isinstance(record, ReleaseRecord):
        about = f"{record.model} v{record.model_version}, SHA-256 {_short(record.model_digest)}"
    elif isinstance(record, DeviceRecord):
        about = f"{record.device}, {record.subjects} subjects"
    return {
        "where": f"{entry.origin.rpartition('/')[2]}#{entry.index}",
        "time": _time(record.time),
        "event": describe(record),
        "about": about,
        "principal": getattr(record, "principal", None) or "",
    }


def _breakable(name: str) -> str:
    # A zero-width space lets a long identifier break in a narrow column.
    return name.replace(":", ":\u200b")


def _short(pseudonym: str) -> str:
    return f"{pseudonym[:PSEUDONYM_SHOWN]}\u2026"


def _time(time: Any) -> str:  # noqa: ANN401 a datetime
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
