"""Writes a report as JSON (with proofs), CSV (for spreadsheets) and PDF (for people)."""

import base64
import csv
import io
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from audit.records import RequestRecord
from audit.reports.access import AccessReport, Entry, describe
from audit.reports.pdf import render

FORMAT: Final = "bedside-access-report/1"

# A spreadsheet runs a cell that begins so (CWE-1236).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class ReportFiles(Struct, frozen=True):
    """Where a report was written."""

    json: Path
    csv: Path
    pdf: Path


def write_report(report: AccessReport, folder: Path, name: str = "access-report") -> ReportFiles:
    """Write `report` to `<folder>/<name>.json`, `.csv` and `.pdf`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(*(folder / f"{name}.{suffix}" for suffix in ("json", "csv", "pdf")))
    files.json.write_bytes(msgspec.json.format(msgspec.json.encode(to_fields(report))))
    files.csv.write_text(to_csv(report), encoding="utf-8", newline="")
    files.pdf.write_bytes(render(report))
    return files


def to_fields(report: AccessReport) -> dict[str, Any]:
    """Return the JSON form: every entry with its proof, and the checkpoints that they lead to."""
    return {
        "format": FORMAT,
        "site": report.site,
        "created": report.created,
        "filters": report.filters,
        "logs": [
            {
                "origin": checkpoint.origin,
                "verifier": verifier,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "checkpoint": checkpoint.note.decode(),
            }
            for checkpoint, verifier in zip(report.checkpoints, report.verifiers, strict=True)
        ],
        "entries": [
            {
                "origin": entry.origin,
                "index": entry.index,
                "record": msgspec.Raw(entry.leaf),
                "leaf": base64.b64encode(entry.leaf).decode(),
                "proof": [base64.b64encode(hash_).decode() for hash_ in entry.proof],
            }
            for entry in report.entries
        ],
    }


def to_csv(report: AccessReport) -> str:
    """Return one line for each entry, with a header; no cell can be taken for a formula."""
    output = io.StringIO()
    writer = csv.writer(output)
    columns = ("log", "index", "time", "event", *_COLUMNS)
    writer.writerow(columns)
    for entry in report.entries:
        writer.writerow([_cell(value) for value in _row(entry)])
    return output.getvalue()


_COLUMNS: Final = (
    "outcome",
    "status",
    "principal",
    "roles",
    "subject",
    "model",
    "model_version",
    "data_class",
    "jurisdiction",
    "purpose",
    "consent",
    "emergency",
    "placement",
    "policies",
    "obligations",
    "problem",
    "flags",
    "rows",
    "duration_us",
    "bundle",
    "model_digest",
)


def _row(entry: Entry) -> list[object]:
    record = entry.record
    values = [getattr(record, column, None) for column in _COLUMNS]
    if not isinstance(record, RequestRecord):
        values = [None if isinstance(value, bool) else value for value in values]
    return [entry.origin, entry.index, record.time.isoformat(), describe(record), *values]


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
