"""Periods that charts and searches are about, and the buckets that charts divide them into."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

HOUR: Final = timedelta(hours=1)
# Nearer to an end a text would stick out, in per cent.
EDGE: Final = 2.5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Period(StrEnum):
    """How far back."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"


SPANS: Final = {
    Period.DAY: (timedelta(hours=24), 1),
    Period.WEEK: (timedelta(days=7), 6),
    Period.MONTH: (timedelta(days=30), 24),
    Period.QUARTER: (timedelta(days=90), 72),
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
    span, hours_each = SPANS[period]
    count = int(span / HOUR) // hours_each
    end = int((now - _EPOCH) / HOUR) + 1
    first = end - count * hours_each
    begins = [_EPOCH + HOUR * (first + n * hours_each) for n in range(count)]
    labels = tuple(f"{time:%a %-d %b, %H:%M}" for time in begins)
    return Buckets(first_hour=first, hours_each=hours_each, labels=labels)


def ticks(period: Period, own: Buckets) -> list[tuple[float, str]]:
    """Return what the axis of time says, and how far along it, in per cent.

    Columns end with the present hour, so that days begin within them: a tick is at its own moment.
    """
    hours = own.end_hour - own.first_hour
    found = []
    for hour in range(own.first_hour, own.end_hour):
        at, text = 100 * (hour - own.first_hour) / hours, _tick(period, _EPOCH + HOUR * hour)
        if text and EDGE < at < 100 - EDGE:
            found.append((round(at, 2), text))
    return found


def each(own: Buckets) -> str:
    """Return what one column stands for, as "hour" or "3 days"."""
    days, hours = divmod(own.hours_each, 24)
    count, unit = (days, "day") if days and not hours else (own.hours_each, "hour")
    return unit if count == 1 else f"{count} {unit}s"


def _tick(period: Period, time: datetime) -> str:
    if period is Period.DAY and time.hour % 6 == 0:
        return f"{time:%-d %b}" if time.hour == 0 else f"{time:%H:%M}"
    if time.hour == 0:
        if period is Period.WEEK:
            return f"{time:%a %-d}"
        if period is Period.MONTH and time.weekday() == 0:
            return f"{time:%-d %b}"
        if period is Period.QUARTER and time.day in (1, 15):
            return f"{time:%-d %b}"
    return ""


def since_of(period: Period, now: datetime) -> datetime:
    """Return the moment with which the period up to `now` begins."""
    return now - SPANS[period][0]
