"""Which uses of break-glass no review names, asked of the index."""

from sqlalchemy import select

from audit.index.search import Hit
from audit.index.store import RecordIndex
from audit.index.tables import records, reference_of
from audit.records import AnyRecord, Outcome, decode


async def find_unreviewed(index: RecordIndex, count: int) -> list[Hit]:
    """Return up to `count` uses of break-glass without a review, oldest first."""
    reviews = records.alias("reviews")
    own = records.c
    reviewed = (
        select(reviews.c.about).where(reviews.c.about == own.reference).correlate(records).exists()
    )
    asked = (
        select(own.origin, own.position, own.leaf)
        .where(own.break_glass.is_(True), own.outcome != Outcome.REFUSED.value, ~reviewed)
        .order_by(own.time_us, own.origin, own.position)
        .limit(count)
    )
    async with index.reading() as connection:
        rows = (await connection.execute(asked)).all()
    return [
        Hit(origin=row.origin, position=row.position, record=decode(bytes(row.leaf))) for row in rows
    ]


async def find_record(index: RecordIndex, origin: str, position: int) -> AnyRecord | None:
    """Return the record at `position` of `origin`, or None."""
    rows = await index.leaves(origin, position, 1)
    if not rows or rows[0]["position"] != position:
        return None
    return decode(bytes(rows[0]["leaf"]))


async def find_reviews(index: RecordIndex, origin: str, position: int) -> list[AnyRecord]:
    """Return the reviews of the record at `position` of `origin`."""
    about = reference_of(origin, position)
    async with index.reading() as connection:
        rows = await connection.execute(select(records.c.leaf).where(records.c.about == about))
        return [decode(bytes(row.leaf)) for row in rows]
