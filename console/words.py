"""How the console writes things: times, numbers, places, and what a record is about."""

from datetime import UTC, datetime, timedelta
from typing import Final

from audit.records import AnyRecord, RefusalsRecord, RequestRecord
from audit.reports.words import about, describe

SHORT: Final = 10

TONES: Final = {
    "served": "calm",
    "done": "calm",
    "justified": "calm",
    "refused": "caution",
    "abandoned": "caution",
    "escalated": "caution",
    "failed": "alert",
    "unjustified": "alert",
}


def clock(time: datetime) -> str:
    """Return a time in UTC, to the second, as people write it."""
    return f"{time.astimezone(UTC):%-d %b %Y %H:%M:%S}"


def ago(time: datetime, now: datetime) -> str:
    """Return how long ago `time` was, roughly."""
    passed = max(timedelta(), now - time)
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(passed.total_seconds() // seconds)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def short(digest: str | None) -> str:
    """Return the beginning of a digest or a pseudonym."""
    return f"{digest[:SHORT]}\u2026" if digest else ""


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def plural(value: int, noun: str, nouns: str = "") -> str:
    """Return a number and its noun; `nouns` where it takes more than an s for several."""
    return f"{value:,} {noun if value == 1 else nouns or f'{noun}s'}"


def replica(origin: str) -> str:
    """Return the last part of a log's name."""
    return origin.rpartition("/")[2]


def outcome_of(record: AnyRecord) -> str:
    """Return how what a record is about ended; empty where that cannot be said."""
    outcome = getattr(record, "outcome", None) or getattr(record, "state", None)
    outcome = outcome or getattr(record, "verdict", None)
    return str(outcome.value) if outcome is not None else ""


def tone_of(outcome: str) -> str:
    """Return the colour of an outcome."""
    return TONES.get(outcome, "plain")


def event_of(record: AnyRecord) -> str:
    """Return what happened, in a few words."""
    words = describe(record)
    return words[:1].upper() + words[1:]


def details_of(record: AnyRecord) -> str:
    """Return the particulars that are not in other columns."""
    if isinstance(record, RequestRecord):
        return f"{record.model} v{record.model_version or '?'}" if record.model else ""
    if isinstance(record, RefusalsRecord):
        return record.model
    return about(record)
