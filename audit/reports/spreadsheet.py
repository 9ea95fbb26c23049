"""The report for spreadsheets: CSV in which no cell can be taken for a formula (CWE-1236)."""

import csv
import io
from collections.abc import Iterable
from typing import Final

from audit.records import RequestRecord
from audit.reports.kind import Table
from audit.reports.report import Entry, Report
from audit.reports.words import describe

# A spreadsheet runs a cell that begins so.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

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
    "attempted",
    "policies",
    "obligations",
    "problem",
    "flags",
    "rows",
    "duration_us",
    "bundle",
    "model_digest",
    "version",
    "approvers",
    "restores",
    "reason",
    "responses",
    "changed",
    "count",
    "until",
    "reviewed_log",
    "reviewed_number",
    "verdict",
    "cohort",
    "cohort_minimum",
)


def records_csv(report: Report) -> str:
    """Return one line for each record, with a header."""
    header = ("log", "index", "time", "event", *_COLUMNS)
    return _csv([header, *(_row(entry) for entry in report.entries)])


def table_csv(table: Table) -> str:
    """Return a table as it is shown; the lines of a cell are separated by semicolons."""
    header = [column.title for column in table.columns]
    rows = [[cell if isinstance(cell, str) else "; ".join(cell) for cell in row] for row in table.rows]
    return _csv([header, *rows])


def _csv(rows: Iterable[Iterable[object]]) -> str:
    output = io.StringIO()
    writer = csv.writer(output)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return output.getvalue()


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
