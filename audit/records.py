"""What one audit entry says: metadata only, in types that have no field for content.

Every field is an enum, a number, a digest, a pseudonym, a time or an identifier from a closed set
(principals, models, placements and policies that the site itself registered). There is no free
text, so a record cannot carry an input, an output or the name of a person. The canonical bytes of a
record (`encode`) are one leaf of the transparency log.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Pseudonym = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Jurisdiction = Annotated[str, Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Time = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0)]


class Action(StrEnum):
    """What a caller asked the gateway for."""

    INFER = "infer"
    PLACE = "place"
    RECEIPT = "receipt"
    CONNECT = "connect"
    MODELS = "models"


class Outcome(StrEnum):
    """How a request ended."""

    SERVED = "served"
    REFUSED = "refused"
    FAILED = "failed"


class Flag(StrEnum):
    """What a reviewer must see at a glance."""

    BREAK_GLASS = "break-glass"
    REPORTED_BY_DEVICE = "reported-by-device"
    OTHER_MODEL = "other-model"


class Problem(StrEnum):
    """Why a request was not served; the closed set that problem documents use as their type."""

    BODY_MALFORMED = "body-malformed"
    BODY_TOO_LARGE = "body-too-large"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    DEVICE_OFFLINE = "device-offline"
    DEVICE_REFUSED = "device-refused"
    EXECUTION_FAILED = "execution-failed"
    FACTS_INVALID = "facts-invalid"
    INPUT_INVALID = "input-invalid"
    INTERNAL = "internal"
    LOG_UNAVAILABLE = "log-unavailable"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    MODEL_NOT_READY = "model-not-ready"
    MODEL_UNKNOWN = "model-unknown"
    NODE_UNREACHABLE = "node-unreachable"
    NOT_FOUND = "not-found"
    OVERLOADED = "overloaded"
    POLICY_REFUSED = "policy-refused"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 a problem's name, not a secret
    TOKEN_INVALID = "token-invalid"  # noqa: S105 likewise
    TOKEN_MISSING = "token-missing"  # noqa: S105 likewise


class DeviceChange(StrEnum):
    """What happened to a device's enrolment."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class JobState(StrEnum):
    """Where a federated job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every record has: when it was made (UTC) and the request or job it belongs to."""

    time: Time
    id: UUID


class RequestRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="request"):
    """One request through the gateway, served or not.

    `principal`, `roles` and `model` are set only from a verified token and the site's own registry:
    what an unauthenticated caller typed is never copied. `status` is the HTTP status of the answer
    and `duration_us` the time from first byte to decision to record, in microseconds.
    """

    action: Action
    outcome: Outcome
    status: Annotated[int, Meta(ge=100, le=599)]
    principal: Identifier | None = None
    roles: tuple[Identifier, ...] = ()
    subject: Pseudonym | None = None
    model: Identifier | None = None
    model_version: Identifier | None = None
    model_digest: Digest | None = None
    data_class: Identifier | None = None
    jurisdiction: Jurisdiction | None = None
    purpose: Identifier | None = None
    consent: bool = False
    emergency: bool = False
    placement: Identifier | None = None
    policies: tuple[Identifier, ...] = ()
    obligations: tuple[Identifier, ...] = ()
    bundle: Digest | None = None
    problem: Problem | None = None
    flags: tuple[Flag, ...] = ()
    rows: Count | None = None
    duration_us: Count | None = None


class DeviceRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="device"):
    """A device was enrolled or revoked."""

    device: Identifier
    change: DeviceChange
    principal: Identifier | None = None
    subjects: Count = 0


class ReleaseRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="release"):
    """A signed model package was published."""

    model: Identifier
    model_version: Identifier
    model_digest: Digest
    principal: Identifier | None = None


class JobRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="job"):
    """A federated job changed state; `cohort` counts the devices whose sums returned."""

    kind: Identifier
    state: JobState
    model: Identifier
    model_version: Identifier
    principal: Identifier | None = None
    cohort: Count = 0
    cohort_minimum: Count = 0
    policies: tuple[Identifier, ...] = ()
    bundle: Digest | None = None


class ReportRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="report"):
    """An audit report was made; `digest` is SHA-256 of its JSON form."""

    kind: Identifier
    principal: Identifier | None = None
    digest: Digest | None = None


AnyRecord = RequestRecord | DeviceRecord | ReleaseRecord | JobRecord | ReportRecord

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
