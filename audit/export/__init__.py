"""Hands the site's records to its SIEM as they are published: syslog or OpenTelemetry, at least once.

`audit.export.otlp` is imported by whoever exports to it: its protobufs need not load with a command.
"""

from audit.export.exporter import Destination, Exporter
from audit.export.settings import ExportSettings, OtlpSettings, SyslogSettings
from audit.export.state import ExportState, export_states
from audit.export.syslog import SyslogFormat
from audit.export.transport import SyslogSender, tls_context

__all__ = [
    "Destination",
    "ExportSettings",
    "ExportState",
    "Exporter",
    "OtlpSettings",
    "SyslogFormat",
    "SyslogSender",
    "SyslogSettings",
    "export_states",
    "tls_context",
]
