"""How many requests ended how, over a report's period: what its chart over time shows."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from audit.records import Outcome, RefusalsRecord, RequestRecord

_HOURS_UP_TO = timedelta(days=2)
_DAYS_UP_TO = timedelta(days=62)
_WEEKS_UP_TO = timedelta(days=200)


class Unit(StrEnum):
    """The width of a bucket; its value names it in a sentence."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Bucket(Struct, frozen=True, kw_only=True):
    """The requests of one hour, day, week from Monday on, or month (UTC), by how they ended."""

    label: str
    served: int
    refused: int
    failed: int
    abandoned: int


_FORMAT = {
    Unit.HOUR: "%Y-%m-%d %H:00",
    Unit.DAY: "%Y-%m-%d",
    Unit.WEEK: "%Y-%m-%d",
    Unit.MONTH: "%Y-%m",
}
_WIDTHS = {Unit.HOUR: timedelta(hours=1), Unit.DAY: timedelta(days=1), Unit.WEEK: timedelta(days=7)}


def timeline(
    records: Iterable[RequestRecord | RefusalsRecord], since: datetime, until: datetime
) -> tuple[Unit, list[Bucket]]:
    """Return the buckets from `since` up to `until`, the empty ones too, and how wide they are."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    unit = _unit(until - since)
    counted: Counter[tuple[str, Outcome]] = Counter()
    for record in records:
        label = _start(unit, record.time.astimezone(UTC)).strftime(_FORMAT[unit])
        counted[label, record.outcome] += record.count if isinstance(record, RefusalsRecord) else 1
    buckets = [
        Bucket(
            label=label,
            served=counted[label, Outcome.SERVED],
            refused=counted[label, Outcome.REFUSED],
            failed=counted[label, Outcome.FAILED],
            abandoned=counted[label, Outcome.ABANDONED],
        )
        for label in _labels(unit, since, until)
    ]
    return unit, buckets


def _unit(period: timedelta) -> Unit:
    if period <= _HOURS_UP_TO:
        return Unit.HOUR
    if period <= _DAYS_UP_TO:
        return Unit.DAY
    return Unit.WEEK if period <= _WEEKS_UP_TO else Unit.MONTH


def _start(unit: Unit, moment: datetime) -> datetime:
    """Return when the bucket of `moment` begins."""
    start = moment.replace(minute=0, second=0, microsecond=0)
    if unit is not Unit.HOUR:
        start = start.replace(hour=0)
    if unit is Unit.WEEK:
        start -= timedelta(days=start.weekday())
    return start.replace(day=1) if unit is Unit.MONTH else start


def _labels(unit: Unit, since: datetime, until: datetime) -> list[str]:
    labels: list[str] = []
    moment = _start(unit, since)
    while moment < until or not labels:
        labels.append(moment.strftime(_FORMAT[unit]))
        if unit is Unit.MONTH:
            moment = (moment + timedelta(days=31)).replace(day=1)
        else:
            moment += _WIDTHS[unit]
    return labels
