"""What people agreed to, and whether that covers a request: pure functions over grants."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from policies import DataClass, Purpose


class Standing(StrEnum):
    """What the registry knows of a person's consent to one use.

    `withdrawn` is stronger than what anybody else says; where the registry knows nothing, it depends on
    whom the site believes.
    """

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"


class Use(Struct, frozen=True):
    """What a person's data is to be used for."""

    purpose: Purpose
    model: str
    data_class: DataClass


class Grant(Struct, frozen=True, kw_only=True):
    """One consent as it was recorded; times in milliseconds since 1970, in UTC.

    `subject` is a pseudonym. Empty `models` or `data_classes` mean all of them. It counts from
    `begins_ms` on, until `expires_ms` or its withdrawal.
    """

    id: UUID
    subject: str
    purposes: frozenset[Purpose]
    models: frozenset[str] = frozenset()
    data_classes: frozenset[DataClass] = frozenset()
    granted_by: str
    record: str = ""
    granted_ms: int
    begins_ms: int
    expires_ms: int
    withdrawn_ms: int | None = None

    def covers(self, use: Use) -> bool:
        """Say whether `use` is within what was agreed to, at any time."""
        return (
            use.purpose in self.purposes
            and (not self.models or use.model in self.models)
            and (not self.data_classes or use.data_class in self.data_classes)
        )

    def state(self, now_ms: int) -> str:
        """Return `withdrawn`, `expired`, `not-yet` or `in-force`."""
        if self.withdrawn_ms is not None:
            return "withdrawn"
        if now_ms >= self.expires_ms:
            return "expired"
        return "in-force" if now_ms >= self.begins_ms else "not-yet"


def standing(grants: Iterable[Grant], use: Use, now_ms: int) -> Standing:
    """Return what the grants of one person say of `use` now.

    One that is in force counts, whatever was withdrawn beside it. A withdrawal outlives the expiry that
    its grant had: nobody agreed again since.
    """
    found = Standing.UNKNOWN
    for grant in grants:
        if grant.covers(use):
            if grant.withdrawn_ms is not None:
                found = Standing.WITHDRAWN
            elif grant.begins_ms <= now_ms < grant.expires_ms:
                return Standing.GRANTED
    return found


def time_of(milliseconds: int) -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
