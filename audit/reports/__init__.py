"""Reports: answers drawn from logs, in forms for people, spreadsheets and programs."""

from audit.reports.filters import Filters, WorkingHours
from audit.reports.kinds import KINDS
from audit.reports.offline import ReportVerification, verify_report
from audit.reports.package import ReportFiles, make_package, record_package, write_package
from audit.reports.report import Report, build_report
from audit.source import LogSource

__all__ = [
    "KINDS",
    "Filters",
    "LogSource",
    "Report",
    "ReportFiles",
    "ReportVerification",
    "WorkingHours",
    "build_report",
    "make_package",
    "record_package",
    "verify_report",
    "write_package",
]
