"""One person's access history: who asked about them, what for, where it ran, and who looked at it."""

from typing import Final

from msgspec import Struct

from audit.index import RecordIndex, Search, count_by, search
from console.draw import share
from console.pages.rows import Row, rows_of
from console.words import short

ROWS: Final = 50
LOOKED_SHOWN: Final = 10


class Part(Struct, frozen=True):
    """How many requests had one value."""

    name: str
    count: int
    share: float


class Subject(Struct, frozen=True, kw_only=True):
    """What the page shows."""

    pseudonym: str
    short: str
    requests: int
    refused: int
    emergencies: int
    by_whom: tuple[Part, ...]
    purposes: tuple[Part, ...]
    places: tuple[Part, ...]
    rows: tuple[Row, ...]
    more: str
    looked: tuple[Row, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """The records that the page shows, as the log is told."""
        return tuple(row.reference for row in (*self.rows, *self.looked))


async def subject(index: RecordIndex, pseudonym: str, after: str | None) -> Subject:
    """Return a page of the person's history.

    Raises:
        SearchInvalid: if `after` is not from a page.
        IndexUnavailable: if the index cannot be read.
    """
    wanted = Search(type="request", subject=pseudonym)
    page = await search(index, wanted, after=after, count=ROWS)
    outcomes = await count_by(index, wanted, "outcome", "break_glass")
    looked = await search(index, Search(type="console", subject=pseudonym), count=LOOKED_SHOWN)
    more = f"/subjects/{pseudonym}?after={page.after}" if page.after is not None else ""
    return Subject(
        pseudonym=pseudonym,
        short=short(pseudonym),
        requests=sum(count for *_, count in outcomes),
        refused=sum(count for outcome, _, count in outcomes if outcome == "refused"),
        emergencies=sum(count for _, flagged, count in outcomes if flagged),
        by_whom=_parts(await count_by(index, wanted, "principal")),
        purposes=_parts(await count_by(index, wanted, "purpose")),
        places=_parts(await count_by(index, wanted, "placement")),
        rows=rows_of(page.hits),
        more=more,
        looked=rows_of(looked.hits),
    )


def _parts(counted: list[tuple[str | None, int]]) -> tuple[Part, ...]:
    most = max((count for _, count in counted), default=0)
    return tuple(Part(name or "none", count, share(count, most)) for name, count in counted[:8])
