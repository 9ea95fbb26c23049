"""Reports: answers drawn from logs, in forms for people, spreadsheets and programs."""

from audit.reports.access import AccessReport, Filters, LogSource, build_access_report
from audit.reports.offline import ReportVerification, verify_report
from audit.reports.write import ReportFiles, write_report

__all__ = [
    "AccessReport",
    "Filters",
    "LogSource",
    "ReportFiles",
    "ReportVerification",
    "build_access_report",
    "verify_report",
    "write_report",
]
