"""Counts by the hour, kept beside the records and made from them: trends cost what their hours do."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import func, select

from audit.index.store import RecordIndex
from audit.index.tables import tallies


class Tally(Struct, frozen=True):
    """The value of each column that was asked for, in that order, and how many records have them."""

    values: tuple[Any, ...]
    count: int


async def tally(
    index: RecordIndex,
    *columns: str,
    since_hour: int | None = None,
    until_hour: int | None = None,
    types: Iterable[str] = (),
) -> list[Tally]:
    """Return how many records have each combination of `columns`, which are some of `TALLIED`.

    `since_hour` is the first hour that counts, `until_hour` the first that does not, both since 1970.

    Raises:
        IndexUnavailable: if the index cannot be read.
    """
    own = tallies.c
    grouped = [own[name] for name in columns]
    asked = select(*grouped, func.sum(own.count)).group_by(*grouped).order_by(*grouped)
    if since_hour is not None:
        asked = asked.where(own.hour >= since_hour)
    if until_hour is not None:
        asked = asked.where(own.hour < until_hour)
    if wanted := list(types):
        asked = asked.where(own.type.in_(wanted))
    async with index.reading() as connection:
        rows = (await connection.execute(asked)).all()
    return [Tally(tuple(row[:-1]), int(row[-1])) for row in rows]
