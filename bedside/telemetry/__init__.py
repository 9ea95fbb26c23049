"""What leaves a process besides answers and records: log lines, metrics, output. An allowlist."""

from bedside.telemetry.dropped import Dropped, What
from bedside.telemetry.names import SiteNames
from bedside.telemetry.process import Telemetry, telemetry_of

__all__ = ["Dropped", "SiteNames", "Telemetry", "What", "telemetry_of"]
