"""FHIR R4 AuditEvents, after the patterns of IHE Basic Audit Log Patterns (BALP) 1.1."""

from audit.reports.fhir.events import access_events, disclosure_events, to_bundle

__all__ = ["access_events", "disclosure_events", "to_bundle"]
