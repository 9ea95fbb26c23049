"""What an activity review points out: a few rules that a person can check by hand, with their numbers.

A finding is a reason to look, never a verdict. Every rule uses the report's own records only, so that
whoever holds the report can repeat it.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, timedelta
from typing import Final

from msgspec import Struct

from audit.records import Flag, Outcome, RequestRecord
from audit.reports.filters import WorkingHours
from audit.reports.words import UNKNOWN, Asked, AskedAny, clock, plural, total, where

BURST_COUNT: Final = 10
BURST_WITHIN: Final = timedelta(minutes=10)
ROLE_AFTER: Final = 20
VOLUME_FACTOR: Final = 4
VOLUME_DAYS: Final = 5
VOLUME_LEAST: Final = 50

RULES: Final = (
    (
        f"Burst of refusals: {BURST_COUNT} or more refused requests of one principal (or of "
        f"callers without a valid token) within {BURST_WITHIN // timedelta(minutes=1)} minutes."
    ),
    (
        f"First use of a role: a principal's first request with a role, after {ROLE_AFTER} or more "
        "requests without it in this report."
    ),
    "Off-hours emergency: break-glass that was served or failed outside the site's working hours.",
    (
        f"Unusual volume: a principal's requests of one day (UTC) number {VOLUME_LEAST} or more "
        f"and over {VOLUME_FACTOR} times the median of its other active days, of which there are "
        f"{VOLUME_DAYS} or more. Those that found a model's door full count here, and in no other rule."
    ),
)


class Finding(Struct, frozen=True, kw_only=True):
    """One thing to look at: by which rule, about whom, the numbers, and the records to begin with."""

    rule: str
    principal: str
    since: str
    numbers: str
    records: str


def find(everything: Sequence[AskedAny], hours: WorkingHours) -> list[Finding]:
    """Return what the rules find in requests given in order of time, in order of the rules."""
    by_principal: dict[str, list[Asked]] = defaultdict(list)
    volumes: dict[str, list[AskedAny]] = defaultdict(list)
    asked: list[Asked] = []
    for entry, record in everything:
        volumes[record.principal or UNKNOWN].append((entry, record))
        if isinstance(record, RequestRecord):
            asked.append((entry, record))
            by_principal[record.principal or UNKNOWN].append((entry, record))
    findings: list[Finding] = []
    for rule in (_bursts, _first_roles):
        for principal in sorted(by_principal):
            findings += rule(principal, by_principal[principal])
    findings += _off_hours(asked, hours)
    for principal in sorted(volumes):
        if principal != UNKNOWN:
            findings += _volumes(principal, volumes[principal])
    return findings


def _bursts(principal: str, asked: Sequence[Asked]) -> Iterator[Finding]:
    refused = [one for one in asked if one[1].outcome is Outcome.REFUSED]
    start = 0
    while start < len(refused):
        end = start
        # A burst goes on for as long as a window of the rule that ends in it is full.
        for number in range(start, len(refused)):
            first = max(start, number - BURST_COUNT + 1)
            full = number - first + 1 == BURST_COUNT
            if full and refused[number][1].time - refused[first][1].time <= BURST_WITHIN:
                end = number
            elif end > start:
                break
            elif full:
                start = first
        if end == start:
            return
        burst = refused[start : end + 1]
        took = burst[-1][1].time - burst[0][1].time
        subjects = len({record.subject for _, record in burst} - {None})
        yield Finding(
            rule="Burst of refusals",
            principal=principal,
            since=clock(burst[0][1].time),
            numbers=f"{len(burst)} refusals in {_took(took)}, about {plural(subjects, 'subject')}",
            records=f"{where(burst[0][0])} to {where(burst[-1][0])}",
        )
        start = end + 1


def _first_roles(principal: str, asked: Sequence[Asked]) -> Iterator[Finding]:
    seen: set[str] = set()
    for number, (entry, record) in enumerate(asked):
        fresh = [role for role in record.roles if role not in seen]
        seen.update(record.roles)
        if number >= ROLE_AFTER:
            for role in fresh:
                yield Finding(
                    rule="First use of a role",
                    principal=principal,
                    since=clock(record.time),
                    numbers=f"role {role}, after {number} requests without it",
                    records=where(entry),
                )


def _off_hours(asked: Sequence[Asked], hours: WorkingHours) -> Iterator[Finding]:
    for entry, record in asked:
        glass = Flag.BREAK_GLASS in record.flags and record.outcome is not Outcome.REFUSED
        if glass and not hours.contain(record.time):
            yield Finding(
                rule="Off-hours emergency",
                principal=record.principal or UNKNOWN,
                since=clock(record.time),
                numbers=f"{hours.local(record.time)}, {record.outcome.value}",
                records=where(entry),
            )


def _volumes(principal: str, asked: Sequence[AskedAny]) -> Iterator[Finding]:
    days: dict[date, list[AskedAny]] = defaultdict(list)
    for one in asked:
        days[one[1].time.astimezone(UTC).date()].append(one)
    for day, of_day in days.items():
        others = [total(requests) for other, requests in days.items() if other != day]
        number = total(of_day)
        if len(others) < VOLUME_DAYS or number < VOLUME_LEAST:
            continue
        median = statistics.median(others)
        if number > VOLUME_FACTOR * median:
            yield Finding(
                rule="Unusual volume",
                principal=principal,
                since=clock(of_day[0][1].time),
                numbers=f"{number} requests; median of its {len(others)} other days: {median:g}",
                records=f"{where(of_day[0][0])} to {where(of_day[-1][0])}",
            )


def _took(time: timedelta) -> str:
    minutes, seconds = divmod(int(time.total_seconds()), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
