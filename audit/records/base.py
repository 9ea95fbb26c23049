"""What every record has, and how what it records ended."""

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from audit.records.fields import Time


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every record has: when it was made (UTC) and the request or job it belongs to."""

    time: Time
    id: UUID


class Outcome(StrEnum):
    """How a request ended; `abandoned`: its caller left before it was answered whole."""

    SERVED = "served"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"
