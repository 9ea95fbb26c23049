"""Periods that charts and searches are about, and the buckets that charts divide them into."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

HOUR: Final = timedelta(hours=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Period(StrEnum):
    """How far back."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"


SPANS: Final = {
    Period.DAY: (timedelta(hours=24), 1, "%H:00"),
    Period.WEEK: (timedelta(days=7), 6, "%a %H:00"),
    Period.MONTH: (timedelta(days=30), 24, "%b %-d"),
    Period.QUARTER: (timedelta(days=90), 72, "%b %-d"),
}
TITLES: Final = {
    Period.DAY: "24 hours",
    Period.WEEK: "7 days",
    Period.MONTH: "30 days",
    Period.QUARTER: "90 days",
}


class Buckets(Struct, frozen=True, kw_only=True):
    """Equal parts of a period that ends with the present hour; hours are counted since 1970."""

    first_hour: int
    hours_each: int
    labels: tuple[str, ...]

    @property
    def end_hour(self) -> int:
        """The first hour behind the period."""
        return self.first_hour + self.hours_each * len(self.labels)

    @property
    def before(self) -> int:
        """The first hour of the period of the same length before."""
        return self.first_hour - self.hours_each * len(self.labels)

    def place(self, hour: int) -> int | None:
        """Return which bucket an hour is in; None for one outside the period."""
        n = (hour - self.first_hour) // self.hours_each
        return n if 0 <= n < len(self.labels) else None


def buckets(period: Period, now: datetime) -> Buckets:
    """Return the buckets of the period up to `now`."""
    span, hours_each, form = SPANS[period]
    count = int(span / HOUR) // hours_each
    end = int((now - _EPOCH) / HOUR) + 1
    first = end - count * hours_each
    labels = tuple((_EPOCH + HOUR * (first + n * hours_each)).strftime(form) for n in range(count))
    return Buckets(first_hour=first, hours_each=hours_each, labels=labels)


def since_of(period: Period, now: datetime) -> datetime:
    """Return the moment with which the period up to `now` begins."""
    return now - SPANS[period][0]
