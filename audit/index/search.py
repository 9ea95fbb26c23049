"""Searches the index: filters, newest first, a page at a time however many records there are.

Paging is by key, not by offset: a page begins behind the last record of the one before, so that the
thousandth costs what the first does and nothing is shown twice while records come in.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, func, or_, select

from audit.errors import SearchInvalid
from audit.index.store import RecordIndex
from audit.index.tables import microseconds, records
from audit.records import Action, AnyRecord, RequestRecord, decode

PAGE_MAX: Final = 500

_EXACT: Final = (
    "origin",
    "type",
    "id",
    "action",
    "outcome",
    "principal",
    "subject",
    "model",
    "data_class",
    "jurisdiction",
    "purpose",
    "placement",
    "place",
    "problem",
)


_NARROW: Final = {"id", "subject", "principal"}
_COMMON: Final = {"type": RequestRecord.__struct_config__.tag, "action": Action.INFER.value}


class Search(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is looked for; None means any. `subject` is a pseudonym.

    `since` is the first moment of the period and `until` the first one behind it. `place` is the
    jurisdiction where a model ran on a subject's data.
    """

    since: datetime | None = None
    until: datetime | None = None
    origin: str | None = None
    type: str | None = None
    id: str | None = None
    action: str | None = None
    outcome: str | None = None
    principal: str | None = None
    subject: str | None = None
    model: str | None = None
    data_class: str | None = None
    jurisdiction: str | None = None
    purpose: str | None = None
    placement: str | None = None
    place: str | None = None
    problem: str | None = None
    break_glass: bool | None = None


class Hit(Struct, frozen=True, kw_only=True):
    """One record that was found, and where it stands in its log."""

    origin: str
    position: int
    record: AnyRecord


class Page(Struct, frozen=True, kw_only=True):
    """Some of what was found, newest first; `after` gives the next page, None if this is the last."""

    hits: tuple[Hit, ...]
    after: str | None


async def search(
    index: RecordIndex, wanted: Search, *, after: str | None = None, count: int = 50
) -> Page:
    """Return up to `count` records behind `after`, which is the `after` of the page before.

    Raises:
        SearchInvalid: if `after` is not from a page, or `count` is not 1 to 500.
        IndexUnavailable: if the index cannot be read.
    """
    if not 1 <= count <= PAGE_MAX:
        raise SearchInvalid(f"a page holds 1 to {PAGE_MAX} records")
    conditions = _conditions(wanted, steer=not index.knows_values)
    if after is not None:
        conditions.append(_behind(after))
    order = (records.c.time_us.desc(), records.c.origin.desc(), records.c.position.desc())
    columns = (records.c.time_us, records.c.origin, records.c.position, records.c.leaf)
    asked = select(*columns).where(*conditions).order_by(*order).limit(count + 1)
    async with index.reading() as connection:
        rows = (await connection.execute(asked)).all()
    hits = tuple(
        Hit(origin=row.origin, position=row.position, record=decode(bytes(row.leaf)))
        for row in rows[:count]
    )
    last = rows[count - 1] if len(rows) > count else None
    return Page(hits=hits, after=None if last is None else f"{last[0]}.{last[2]}.{last[1]}")


async def count_by(index: RecordIndex, wanted: Search, *columns: str) -> list[tuple[Any, ...]]:
    """Return how many records have each combination of `columns`: (value, ..., count), most first.

    Raises:
        IndexUnavailable: if the index cannot be read.
    """
    grouped: Sequence[ColumnElement[Any]] = [records.c[name] for name in columns]
    number = func.count()
    asked = (
        select(*grouped, number)
        .where(*_conditions(wanted, steer=not index.knows_values))
        .group_by(*grouped)
        .order_by(number.desc(), *grouped)
    )
    async with index.reading() as connection:
        return [tuple(row) for row in (await connection.execute(asked)).all()]


def parse_search(text: bytes) -> Search:
    """Return the search in a JSON object.

    Raises:
        SearchInvalid: if it is none.
    """
    try:
        return msgspec.json.decode(text, type=Search)
    except msgspec.MsgspecError as error:
        raise SearchInvalid("the search is not a JSON object of its filters") from error


def _conditions(wanted: Search, *, steer: bool) -> list[ColumnElement[bool]]:
    """Return the conditions; with `steer`, written so that the database walks the smallest index.

    Beside a filter that leaves few records, the others are looked at row by row then: SQLite would
    rather walk all of one type in order (1.2 s of two million) than those of one principal. Inferences
    are most of what there is: beside any other filter, to walk them is never the best.
    """
    asked = {name: value for name in _EXACT if (value := getattr(wanted, name)) is not None}
    narrow = asked.keys() & _NARROW
    common = {name for name in asked if _COMMON.get(name) == asked[name]}
    aside = asked.keys() - narrow if narrow else common if common != asked.keys() else set()
    given = [
        func.coalesce(records.c[name], "") == value
        if steer and name in aside
        else records.c[name] == value
        for name, value in asked.items()
    ]
    if wanted.break_glass is not None:
        given.append(records.c.break_glass.is_(wanted.break_glass))
    if wanted.since is not None:
        given.append(records.c.time_us >= microseconds(wanted.since))
    if wanted.until is not None:
        given.append(records.c.time_us < microseconds(wanted.until))
    return given


def _behind(after: str) -> ColumnElement[bool]:
    time, _, rest = after.partition(".")
    position, _, origin = rest.partition(".")
    if not (time.isdecimal() and position.isdecimal() and len(time) < 19 and len(position) < 19):
        raise SearchInvalid("`after` is not from a page of results")
    time_us, own = int(time), records.c
    # The first condition follows from the second; only it says where in an index to begin.
    return and_(
        own.time_us <= time_us,
        or_(
            own.time_us < time_us,
            own.origin < origin,
            and_(own.origin == origin, own.position < int(position)),
        ),
    )
