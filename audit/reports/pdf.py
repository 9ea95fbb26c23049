"""The report for people: a PDF set by Typst from a template and data, never from pasted text."""

import json
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import msgspec
import typst

from audit.reports.document import Shown, filters_of, notes_of, period_of
from audit.reports.report import Report
from audit.reports.words import clock

TEMPLATE: Final = Path(__file__).parent / "report.typ"


def render(report: Report, shown: Shown) -> bytes:
    """Return the report as PDF/A-2a (ISO 19005-2); the same report gives the same bytes."""
    document: bytes = typst.compile(
        str(TEMPLATE),
        sys_inputs={"report": json.dumps(to_data(report, shown))},
        ignore_system_fonts=True,
        pdf_standards="a-2a",
        timestamp=int(report.created.timestamp()),
    )
    return document


def to_data(report: Report, shown: Shown) -> dict[str, Any]:
    """Return what the template shows; texts are data to it, never markup."""
    created = report.created.astimezone(UTC)
    return {
        "title": report.kind.title,
        "subtitle": report.kind.subtitle,
        "name": report.kind.name,
        "basis": list(report.kind.basis),
        "notes": notes_of(report),
        "site": report.site,
        "created": f"{clock(report.created)} UTC",
        "date": {
            part: getattr(created, part)
            for part in ("year", "month", "day", "hour", "minute", "second")
        },
        "period": period_of(report),
        "filters": filters_of(report),
        "carried": len(report.entries),
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
        **msgspec.to_builtins(shown),
    }


def _completeness(report: Report) -> str:
    if report.complete:
        return "It draws on every record of these logs up to their checkpoints."
    if report.kind.edges:
        return "It draws on the logs as a whole, and carries the first and the last record of each."
    return (
        "It draws on every record of these logs that is of its kind, lies in the period and passes the "
        "filters. That none is missing, only the whole log can show."
    )
