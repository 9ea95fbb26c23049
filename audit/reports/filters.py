"""What a report is limited to, and what its rules take as given: both are stated in it."""

from datetime import datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta, Struct

from audit.errors import ReportRefused
from audit.records import AnyRecord, Outcome

_WORKING_DAYS: Final = 5


class Filters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a report is limited to; `subject` is a pseudonym. None means all.

    `since` is the first moment of the period and `until` the first one behind it.
    """

    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None
    principal: str | None = None
    outcome: Outcome | None = None

    def choose(self, record: AnyRecord) -> bool:
        """Say whether a report with these filters shows `record`."""
        if self.since is not None and record.time < self.since:
            return False
        if self.until is not None and record.time >= self.until:
            return False
        wanted = (
            ("subject", self.subject),
            ("principal", self.principal),
            ("outcome", self.outcome),
        )
        return all(value is None or getattr(record, field, None) == value for field, value in wanted)


class WorkingHours(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a site works: Monday to Friday, from hour `start` until hour `end`, in `timezone`."""

    timezone: str = "UTC"
    start: Annotated[int, Meta(ge=0, le=23)] = 7
    end: Annotated[int, Meta(ge=1, le=24)] = 19

    @classmethod
    def parse(cls, hours: str, timezone: str) -> "WorkingHours":
        """Return the hours that `7-19` and an IANA time zone name.

        Raises:
            ReportRefused: if they name none.
        """
        first, _, last = hours.partition("-")
        try:
            start, end = int(first), int(last)
            ZoneInfo(timezone)
        except (ValueError, ZoneInfoNotFoundError, OSError) as error:
            raise ReportRefused(
                "working hours read `7-19`, and a time zone `Europe/Berlin` or `UTC`"
            ) from error
        if not 0 <= start < end <= 24:
            raise ReportRefused("working hours begin before they end, between 0 and 24")
        return cls(timezone=timezone, start=start, end=end)

    def contain(self, moment: datetime) -> bool:
        """Say whether `moment` lies in them."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        return local.weekday() < _WORKING_DAYS and self.start <= local.hour < self.end

    def local(self, moment: datetime) -> str:
        """Return the weekday and the time of `moment` at the site."""
        return f"{moment.astimezone(ZoneInfo(self.timezone)):%a %H:%M} {self.timezone}"

    def __str__(self) -> str:
        return f"Monday to Friday, {self.start:02}:00 to {self.end:02}:00 {self.timezone}"
