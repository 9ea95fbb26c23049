"""The canonical bytes of a record: one leaf of the transparency log."""

import msgspec

from audit.records.console import ConsoleRecord
from audit.records.control import DeviceRecord, JobRecord, ReleaseRecord
from audit.records.oversight import ErasureRecord, HoldRecord, PruneRecord, ReportRecord, ReviewRecord
from audit.records.policy import PolicyRecord
from audit.records.request import RefusalsRecord, RequestRecord

AnyRecord = (
    RequestRecord
    | RefusalsRecord
    | DeviceRecord
    | ReleaseRecord
    | JobRecord
    | PolicyRecord
    | ReportRecord
    | ReviewRecord
    | ErasureRecord
    | ConsoleRecord
    | HoldRecord
    | PruneRecord
)

_encoder = msgspec.json.Encoder(order="deterministic")

_decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


def encode(record: AnyRecord) -> bytes:
    """Return the canonical bytes of `record`: UTF-8 JSON, keys sorted, defaults left out."""
    return _encoder.encode(record)


def decode(leaf: bytes) -> AnyRecord:
    """Return the record that `leaf` holds.

    Raises:
        msgspec.ValidationError: if the bytes are not exactly one record of this schema.
    """
    return _decoder.decode(leaf)
