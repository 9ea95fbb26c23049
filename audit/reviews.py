"""The review of emergencies: every use of break-glass is looked at afterwards, by somebody else.

45 CFR 164.308(a)(1)(ii)(D) asks for regular review of such records. What is open follows from the logs
alone: requests that were flagged and served, and that no review names.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec import Struct

from audit.errors import ReviewRefused
from audit.index.search import Hit
from audit.index.store import RecordIndex
from audit.index.unreviewed import find_record, find_reviews, find_unreviewed
from audit.log import Log
from audit.records import Flag, Outcome, RequestRecord, ReviewRecord, ReviewVerdict, encode

REFERENCE = "<log>#<number>"


class Reviewed(Struct, frozen=True, kw_only=True):
    """A review that was recorded, and where its record stands."""

    reference: str
    verdict: ReviewVerdict
    record: str


async def open_reviews(index: RecordIndex, *, count: int = 100) -> Sequence[Hit]:
    """Return up to `count` uses of break-glass that nobody reviewed yet, oldest first.

    Raises:
        IndexUnavailable: if the index cannot be read.
    """
    return await find_unreviewed(index, count)


async def review(
    index: RecordIndex,
    log: Log,
    *,
    reference: str,
    principal: str,
    verdict: ReviewVerdict,
    review_id: UUID,
) -> Reviewed:
    """Record that `principal` reviewed the request whose record is `<log>#<number>`.

    Raises:
        ReviewRefused: if it is no use of break-glass, was reviewed before, or `principal` made it.
        LogUnavailable: if the review cannot be made durable; it did not happen then.
    """
    origin, _, number = reference.rpartition("#")
    if not (origin and number.isascii() and number.isdecimal() and len(number) < 19):
        raise ReviewRefused(f"a record is named {REFERENCE}")
    record = await find_record(index, origin, int(number))
    if not isinstance(record, RequestRecord) or Flag.BREAK_GLASS not in record.flags:
        raise ReviewRefused("no use of break-glass is recorded there")
    if record.outcome is Outcome.REFUSED:
        raise ReviewRefused("the request was refused; nothing is to be reviewed")
    if record.principal == principal:
        raise ReviewRefused("somebody else must review it than who asked")
    if await find_reviews(index, origin, int(number)):
        raise ReviewRefused("it was reviewed before")
    written = ReviewRecord(
        time=datetime.now(UTC),
        id=review_id,
        reviewed_log=origin,
        reviewed_number=int(number),
        verdict=verdict,
        principal=principal,
    )
    position = await log.append(encode(written))
    return Reviewed(reference=reference, verdict=verdict, record=f"{log.origin}#{position}")
