"""Numbers that packs set, as data: how many devices a result needs, how many results there are.

A pack's `data.toml` may have

    [numbers]
    cohort_minimum = 11        no federated result is made from fewer devices
    answers_per_release = 10   so many federated jobs about one release are answered,
    answers_period_days = 30   within any so many days
    source = "..."
    checked = 2026-11-24

The names are a closed set, since one that nobody enforces would be a promise that nobody keeps. Of the
numbers of several packs the strictest hold, so a site's own pack can only tighten them.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Annotated, Final

from msgspec import Meta, Struct

COHORT_MAX: Final = 1_000_000
ANSWERS_MAX: Final = 1_000_000
PERIOD_MAX_DAYS: Final = 36525


class Numbers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is enforced of federated jobs; None is no limit.

    `source` says where the numbers come from, and `checked` on which day they were compared with it.
    """

    cohort_minimum: Annotated[int, Meta(ge=2, le=COHORT_MAX)] | None = None
    answers_per_release: Annotated[int, Meta(ge=1, le=ANSWERS_MAX)] | None = None
    answers_period_days: Annotated[int, Meta(ge=1, le=PERIOD_MAX_DAYS)] | None = None
    source: Annotated[str, Meta(min_length=1)]
    checked: dt.date

    @property
    def problem(self) -> str | None:
        """What is wrong with them, if anything."""
        if (self.answers_per_release is None) is not (self.answers_period_days is None):
            return "answers_per_release and answers_period_days stand together: so many in so many days"
        return None

    def lines(self) -> dict[str, int]:
        """Return the numbers that are set, by name."""
        named = {
            "cohort_minimum": self.cohort_minimum,
            "answers_per_release": self.answers_per_release,
            "answers_period_days": self.answers_period_days,
        }
        return {name: number for name, number in named.items() if number is not None}


def strictest(numbers: Iterable[Numbers]) -> Numbers | None:
    """Return the numbers that hold where all of these do; None for none."""
    found = tuple(numbers)
    if not found:
        return None

    def of(pick: Callable[[Iterable[int]], int], values: Iterable[int | None]) -> int | None:
        given = [value for value in values if value is not None]
        return pick(given) if given else None

    return Numbers(
        cohort_minimum=of(max, (each.cohort_minimum for each in found)),
        answers_per_release=of(min, (each.answers_per_release for each in found)),
        answers_period_days=of(max, (each.answers_period_days for each in found)),
        source="; ".join(dict.fromkeys(each.source for each in found)),
        checked=min(each.checked for each in found),
    )
