"""What a kind of report declares, and the parts that a report is made of.

A kind is a title, the law that asks for it, which records it is about, and pure functions from those
records to figures, charts and tables. Everything shown follows from the records, so that whoever holds
them and this code gets the same report again (`audit.reports.offline` does exactly that).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from audit.records import AnyRecord
from audit.reports.filters import Filters

if TYPE_CHECKING:
    from audit.reports.report import Report

Cell = str | list[str]
"""One line, or a main line and what is set small beneath it; only ever text, never markup."""


class Tone(StrEnum):
    """How a number is meant: its colour."""

    PLAIN = "plain"
    CALM = "calm"
    CAUTION = "caution"
    ALERT = "alert"


class Style(StrEnum):
    """How a column is set: `outcome` colours its first word, `number` stands to the right."""

    TEXT = "text"
    NUMBER = "number"
    OUTCOME = "outcome"
    CODE = "code"


class Figure(Struct, frozen=True):
    """One number of the summary."""

    label: str
    value: int
    tone: Tone = Tone.PLAIN


class Column(Struct, frozen=True):
    """A table's column; `width` is its share, 0 takes what its content needs."""

    title: str
    width: float = 1
    style: Style = Style.TEXT


class Table(Struct, frozen=True, kw_only=True):
    """One table: `name` is that of its CSV file, `empty` what is said instead of no rows."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]
    intro: str = ""
    empty: str = ""


class Series(Struct, frozen=True):
    """One colour of a chart over time, a value for each label."""

    name: str
    tone: Tone
    values: list[int]


class OverTime(Struct, frozen=True, kw_only=True, tag="over-time"):
    """Stacked columns over the period."""

    title: str
    labels: list[str]
    series: list[Series]


class Bars(Struct, frozen=True, kw_only=True, tag="bars"):
    """Counts beside each other, most first; `empty` is said instead of none."""

    title: str
    rows: list[tuple[str, int]]
    empty: str = "None."


Chart = OverTime | Bars


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of report.

    `shows` says which records it is about; `keeps` replaces the filters where a kind also needs records
    that they would leave out. With `edges`, it carries the first and the last record of each log and no
    other. `events` are its FHIR AuditEvents, and `notes` say what the report cannot show.
    """

    name: str
    title: str
    subtitle: str
    basis: tuple[str, ...]
    figures: "Callable[[Report], Sequence[Figure]]"
    charts: "Callable[[Report], Sequence[Chart]]"
    tables: "Callable[[Report], Sequence[Table]]"
    shows: Callable[[AnyRecord], bool] = lambda _: True
    keeps: Callable[[AnyRecord, Filters], bool] = lambda record, filters: filters.choose(record)
    edges: bool = False
    needs_subject: bool = False
    events: "Callable[[Report], list[dict[str, Any]]] | None" = None
    notes: tuple[str, ...] = ()

    def selects(self, record: AnyRecord, filters: Filters, index: int, span: range) -> bool:
        """Say whether a report with `filters` carries the record at `index` of a log's `span`."""
        if self.edges:
            return index in (span.start, span.stop - 1)
        return self.shows(record) and self.keeps(record, filters)
