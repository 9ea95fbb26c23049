"""Records as OpenTelemetry logs, over HTTP in protobuf (OTLP 1.x, `/v1/logs`).

A log record's body is the record's canonical form, its attributes are the fields (`bedside.<field>`),
and its event name is `bedside.<type>`. `bedside.entry.log` and `bedside.entry.number` say where it
stands: whoever sees a place twice was sent the record twice.
"""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from typing import Final

import aiohttp
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from audit.export.fields import Severity, fields_of, kind_of, severity_of
from audit.follow import DeliveryFailed, Entry

PROTOBUF: Final = "application/x-protobuf"
SCOPE: Final = "bedside.audit"
ANSWER_MAX_BYTES: Final = 1 << 20
WAIT_MAX_S: Final = 600.0

# OpenTelemetry's own mapping of syslog severities (logs data model, appendix B).
_SEVERITIES: Final = {
    Severity.WARNING: SeverityNumber.SEVERITY_NUMBER_WARN,
    Severity.NOTICE: SeverityNumber.SEVERITY_NUMBER_INFO2,
    Severity.INFORMATIONAL: SeverityNumber.SEVERITY_NUMBER_INFO,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class OtlpLogs:
    """Posts batches to one receiver; any 200 takes them, but for those that it says it refuses."""

    def __init__(
        self, url: str, *, token: str | None, tls: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        self._url = url
        self._headers = {"content-type": PROTOBUF}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, entries: Sequence[Entry]) -> int:
        """Send `entries`; return how many of them the receiver refused for good.

        Raises:
            DeliveryFailed: if it did not take them.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        body = to_request(entries).SerializeToString()
        try:
            # Elsewhere nobody agreed to be sent records.
            async with self._session.post(
                self._url,
                data=body,
                headers=self._headers,
                ssl=self._tls if self._tls is not None else True,
                allow_redirects=False,
            ) as response:
                status, wait = response.status, response.headers.get("retry-after", "")
                answer = await response.content.read(ANSWER_MAX_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = type(error).__name__
            raise DeliveryFailed(f"the OTLP receiver does not answer ({kind})") from error
        if status != 200:
            wait_s = min(float(wait), WAIT_MAX_S) if wait.isdecimal() else 0.0
            raise DeliveryFailed(f"the OTLP receiver answered with status {status}", wait_s=wait_s)
        return _refused(answer, len(entries))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def to_request(entries: Sequence[Entry]) -> ExportLogsServiceRequest:
    """Return the request that hands `entries` on, one resource for each log."""
    scope = InstrumentationScope(name=SCOPE, version=version("bedside"))
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=_resource(log),
                scope_logs=[ScopeLogs(scope=scope, log_records=map(_log_record, of_log))],
            )
            for log, of_log in groupby(entries, key=lambda entry: entry.log)
        ]
    )


def _refused(answer: bytes, sent: int) -> int:
    """Return how many records an answer refuses: they must not be sent again (partial success)."""
    try:
        partial = ExportLogsServiceResponse.FromString(answer).partial_success
    except DecodeError as error:
        raise DeliveryFailed("the OTLP receiver's answer is not one of OTLP") from error
    return max(0, min(partial.rejected_log_records, sent))


def _resource(log: str) -> Resource:
    site, _, replica = log.partition("/")
    named = {"service.name": "bedside", "service.namespace": site, "service.instance.id": replica}
    return Resource(attributes=[_pair(name, value) for name, value in named.items()])


def _log_record(entry: Entry) -> LogRecord:
    severity = severity_of(entry.record)
    fields = fields_of(entry.leaf)
    return LogRecord(
        time_unix_nano=_nanoseconds(entry.record.time),
        observed_time_unix_nano=_nanoseconds(entry.record.time),
        severity_number=_SEVERITIES[severity],
        severity_text=severity.name,
        body=AnyValue(string_value=entry.leaf.decode()),
        event_name=f"bedside.{kind_of(entry.record)}",
        attributes=[
            _pair("bedside.entry.log", entry.log),
            _pair("bedside.entry.number", entry.number),
            *(_pair(f"bedside.{name}", value) for name, value in fields),
        ],
    )


def _pair(name: str, value: str | int | bool | list[str]) -> KeyValue:
    return KeyValue(key=name, value=_value(value))


def _value(value: str | int | bool | list[str]) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=one) for one in value]))


def _nanoseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
