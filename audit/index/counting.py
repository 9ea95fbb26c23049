"""How rows of records are counted by the hour, whoever counts: who adds them, and who checks them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

HOUR_US: Final = 3_600_000_000

Counts = Counter[tuple[Any, ...]]
"""Counts by the columns that `TALLIED` names, in that order."""


def hour_of(time_us: int) -> int:
    """Return the hour since 1970 in which a moment lies."""
    return time_us // HOUR_US


def count_rows(rows: Iterable[Mapping[str, Any]]) -> Counts:
    """Count the rows of records; one that stands for several requests counts each of them."""
    found: Counts = Counter()
    for row in rows:
        key = (
            hour_of(row["time_us"]),
            row["origin"],
            row["type"],
            row["outcome"] or "",
            row["break_glass"],
            row["jurisdiction"] or "",
            row["place"] or "",
            row["model"] or "",
        )
        found[key] += row["stands_for"]
    return found
