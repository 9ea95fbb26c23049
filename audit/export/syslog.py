"""A record as one syslog message (RFC 5424), and messages as a stream (RFC 6587 section 3.4.1).

    <110>1 2026-11-24T08:30:00.000000Z gw-1 bedside clinic/gateway-1 request
        [bedside@32473 log="clinic/gateway-1" number="41" outcome="served" ...] {"action":"infer",...}

The structured data holds what alerts are written on. The message is the record's canonical bytes, which
are what the log hashed: SHA-256(0x00 || message) is the leaf hash at the place `log`, `number`.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Final

from msgspec import Struct

from audit.export.fields import fields_of, kind_of, severity_of
from audit.follow import Entry

LOG_AUDIT: Final = 13
APP_NAME: Final = "bedside"
PROCID_MAX: Final = 128
NIL: Final = "-"

# What is in the structured data too, so that a receiver need not parse the message to sort it.
_SORTED_BY: Final = (
    "id",
    "action",
    "outcome",
    "status",
    "problem",
    "principal",
    "roles",
    "subject",
    "model",
    "model_version",
    "data_class",
    "jurisdiction",
    "purpose",
    "emergency",
    "placement",
    "policies",
    "flags",
    "count",
    "change",
    "device",
    "kind",
    "state",
    "step",
    "version",
    "verdict",
)

# RFC 5424 section 6.3.3: these three are escaped with a backslash, and nothing else is.
_ESCAPED: Final = str.maketrans({'"': r"\"", "\\": r"\\", "]": r"\]"})


class SyslogFormat(Struct, frozen=True, kw_only=True):
    """How messages are headed: `hostname` is this machine's, `enterprise` the number of the SD-ID."""

    hostname: str
    enterprise: int

    def message(self, entry: Entry) -> bytes:
        """Return the message of one record."""
        priority = LOG_AUDIT * 8 + severity_of(entry.record)
        time = entry.record.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        process = entry.log if len(entry.log) <= PROCID_MAX else NIL
        kind = kind_of(entry.record)
        head = f"<{priority}>1 {time} {self.hostname} {APP_NAME} {process} {kind}"
        return f"{head} {self._data(entry)} ".encode() + entry.leaf

    def frame(self, entries: Iterable[Entry]) -> bytes:
        """Return the messages of `entries` one after the other, each headed by its length in octets."""
        messages = map(self.message, entries)
        return b"".join(b"%d %s" % (len(message), message) for message in messages)

    def _data(self, entry: Entry) -> str:
        parameters = "".join(f' {name}="{value.translate(_ESCAPED)}"' for name, value in _pairs(entry))
        return f"[{APP_NAME}@{self.enterprise}{parameters}]"


def _pairs(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "log", entry.log
    yield "number", str(entry.number)
    fields = dict(fields_of(entry.leaf))
    for name in _SORTED_BY:
        value = fields.get(name)
        # Of several values each stands in a parameter of the same name (RFC 5424 section 6.3.3).
        for one in value if isinstance(value, list) else () if value is None else (value,):
            yield name, str(one).lower() if isinstance(one, bool) else str(one)
