"""The search page: what was found, a page at a time, and what else can be looked for."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from audit.index import RecordIndex, search
from audit.records import Action, Outcome, Problem
from console.pages.rows import Row, rows_of
from console.period import TITLES, Period
from console.query import WHAT_TITLES, Query, What
from policies import DataClass, Purpose

ROWS: Final = 50


class Choices(Struct, frozen=True):
    """What the form's lists offer."""

    what: tuple[tuple[What, str], ...] = tuple(WHAT_TITLES.items())
    periods: tuple[tuple[Period, str], ...] = tuple(TITLES.items())
    outcomes: tuple[str, ...] = tuple(Outcome)
    actions: tuple[str, ...] = tuple(sorted(Action))
    problems: tuple[str, ...] = tuple(sorted(Problem))
    data_classes: tuple[str, ...] = tuple(DataClass)
    purposes: tuple[str, ...] = tuple(Purpose)


CHOICES: Final = Choices()


class SavedView(Struct, frozen=True, kw_only=True):
    """A search that its owner keeps."""

    id: str
    title: str
    path: str
    current: bool


class Found(Struct, frozen=True, kw_only=True):
    """One page of what was found; `more` leads to the next, and is empty on the last."""

    query: Query
    rows: tuple[Row, ...]
    more: str

    @property
    def shown(self) -> tuple[str, ...]:
        """The records that the page shows, as the log is told."""
        return tuple(row.reference for row in self.rows)


async def found(index: RecordIndex, query: Query, after: str | None, now: datetime) -> Found:
    """Return the page behind `after`, or the first.

    Raises:
        SearchInvalid: if `after` is not from a page.
        IndexUnavailable: if the index cannot be read.
    """
    page = await search(index, query.search(now), after=after, count=ROWS)
    more = ""
    if page.after is not None:
        joint = "&" if "?" in query.address() else "?"
        more = f"{query.address()}{joint}after={page.after}"
    return Found(query=query, rows=rows_of(page.hits), more=more)
