"""Reports through the coordinator's API: ordered, made one at a time, fetched."""

from coordinator.reports.desk import ReportDesk

__all__ = ["ReportDesk"]
