"""How many requests ended how, over a report's period: what its chart over time shows."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from audit.records import Outcome, RequestRecord

_HOURS_UP_TO = timedelta(days=2)
_DAYS_UP_TO = timedelta(days=62)


class Unit(StrEnum):
    """The width of a bucket; its value names it in a sentence."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Bucket(Struct, frozen=True, kw_only=True):
    """The requests of one hour, day or month (UTC), by how they ended."""

    label: str
    served: int
    refused: int
    failed: int


_FORMAT = {Unit.HOUR: "%Y-%m-%d %H:00", Unit.DAY: "%Y-%m-%d", Unit.MONTH: "%Y-%m"}


def timeline(
    records: Iterable[RequestRecord], since: datetime, until: datetime
) -> tuple[Unit, list[Bucket]]:
    """Return the buckets from `since` up to `until`, the empty ones too, and how wide they are."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    unit = _unit(until - since)
    counted = Counter(
        (record.time.astimezone(UTC).strftime(_FORMAT[unit]), record.outcome) for record in records
    )
    buckets = [
        Bucket(
            label=label,
            served=counted[label, Outcome.SERVED],
            refused=counted[label, Outcome.REFUSED],
            failed=counted[label, Outcome.FAILED],
        )
        for label in _labels(unit, since, until)
    ]
    return unit, buckets


def _unit(period: timedelta) -> Unit:
    if period <= _HOURS_UP_TO:
        return Unit.HOUR
    return Unit.DAY if period <= _DAYS_UP_TO else Unit.MONTH


def _labels(unit: Unit, since: datetime, until: datetime) -> list[str]:
    labels: list[str] = []
    moment = since.replace(minute=0, second=0, microsecond=0)
    if unit is not Unit.HOUR:
        moment = moment.replace(hour=0)
    if unit is Unit.MONTH:
        moment = moment.replace(day=1)
    while moment < until or not labels:
        labels.append(moment.strftime(_FORMAT[unit]))
        if unit is Unit.HOUR:
            moment += timedelta(hours=1)
        elif unit is Unit.DAY:
            moment += timedelta(days=1)
        else:
            moment = (moment + timedelta(days=31)).replace(day=1)
    return labels
