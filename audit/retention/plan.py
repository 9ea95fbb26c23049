"""What of a log is past its retention and under no hold: whole bundles from its beginning on.

45 CFR 164.316(b)(2)(i) asks for six years from the day a document was made, or was last in effect. A
policy's `retain(days)` makes that longer for the records of what it permitted, never shorter.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from audit.errors import VerificationError
from audit.minimum import read_minimum
from audit.published import read_bundle
from audit.records import AnyRecord, RefusalsRecord, RequestRecord, decode
from audit.retention.holds import Hold
from audit.source import LogSource
from audit.tiles import WIDTH
from audit.verify import read_checkpoint, verify_tree

_RETAIN: Final = re.compile(r"retain\(([0-9]{1,6})\)")


class Reason(StrEnum):
    """Why a bundle stays."""

    RETENTION = "retention"
    HOLD = "hold"
    EXPORT = "export"
    INCOMPLETE = "incomplete"


class Keeps(Struct, frozen=True, kw_only=True):
    """What keeps a bundle: its record `number`, until a time or by the holds named."""

    reason: Reason
    number: int
    until: datetime | None = None
    holds: tuple[str, ...] = ()


class PrunePlan(Struct, frozen=True, kw_only=True):
    """What would go of a log: the records from `minimum` up to `target`, none where these are equal.

    `newest` is the newest time of all records below `target`, `keeps` what the log begins with then,
    and `behind` how many bundles could go if that did not stand before them.
    """

    origin: str
    size: int
    minimum: int
    target: int
    newest: datetime | None
    keeps: Keeps | None
    behind: int

    @property
    def records(self) -> int:
        """How many records would go."""
        return self.target - self.minimum


class _Bundle(Struct, frozen=True, kw_only=True):
    first: int
    newest: datetime
    keeps: Keeps | None


def plan_pruning(
    source: LogSource,
    holds: Sequence[Hold],
    *,
    days: int,
    now: datetime,
    exported: int | None = None,
) -> PrunePlan:
    """Return what of a log may go at `now`, where records are kept for `days`; blocking.

    `exported` is the first record that some destination of an export has yet to take.

    The log is verified first: nothing is pruned from one that was tampered with.

    Raises:
        VerificationError: if it does not verify.
    """
    checkpoint = read_checkpoint(source.folder, source.verifier)
    minimum = read_minimum(source.folder, source.verifier)
    verify_tree(source.folder, checkpoint, minimum.index)
    target, newest, keeps, behind = minimum.index, minimum.newest, None, 0
    for bundle in _bundles(source, checkpoint.size, minimum.newest, holds, days, now):
        if keeps is not None:
            behind += bundle.keeps is None
        elif bundle.keeps is None and exported is not None and exported < bundle.first + WIDTH:
            keeps = Keeps(reason=Reason.EXPORT, number=max(exported, bundle.first))
        elif bundle.keeps is None:
            target, newest = bundle.first + WIDTH, bundle.newest
        else:
            keeps = bundle.keeps
    return PrunePlan(
        origin=checkpoint.origin,
        size=checkpoint.size,
        minimum=minimum.index,
        target=target,
        newest=newest,
        keeps=keeps,
        behind=behind,
    )


def newest_record(source: LogSource) -> AnyRecord | None:
    """Return the last record that a log published, or None if there is none.

    Raises:
        VerificationError: if its checkpoint or the record does not check.
    """
    checkpoint = read_checkpoint(source.folder, source.verifier)
    minimum = read_minimum(source.folder, source.verifier).index
    if checkpoint.size == minimum:
        return None
    bundle, position = divmod(checkpoint.size - 1, WIDTH)
    leaves = list(read_bundle(source.folder, bundle, position + 1))
    return _record(checkpoint.size - 1, leaves[-1])


def _bundles(
    source: LogSource,
    size: int,
    newest: datetime | None,
    holds: Sequence[Hold],
    days: int,
    now: datetime,
) -> Iterator[_Bundle]:
    start = read_minimum(source.folder, source.verifier).index
    for bundle in range(start // WIDTH, -(-size // WIDTH)):
        first = bundle * WIDTH
        width = min(WIDTH, size - first)
        longest: Keeps | None = None
        held: Keeps | None = None
        for number, leaf in enumerate(read_bundle(source.folder, bundle, width), first):
            record = _record(number, leaf)
            # A clock that was behind does not make a record older than those before it.
            newest = record.time if newest is None else max(newest, record.time)
            until = kept_until(record, newest, days)
            if until > now and (longest is None or longest.until is None or until > longest.until):
                longest = Keeps(reason=Reason.RETENTION, number=number, until=until)
            names = [hold.reference for hold in holds if hold.holds(source.verifier.name, record)]
            if names:
                before = held.holds if held is not None else ()
                at = held.number if held is not None else number
                held = Keeps(
                    reason=Reason.HOLD, number=at, holds=tuple(dict.fromkeys((*before, *names)))
                )
        if newest is None:
            return
        keeps = held or longest
        if keeps is None and width < WIDTH:
            keeps = Keeps(reason=Reason.INCOMPLETE, number=first)
        yield _Bundle(first=first, newest=newest, keeps=keeps)


def kept_until(record: AnyRecord, made: datetime, days: int) -> datetime:
    """Return when a record that was made at `made` is past its retention."""
    last = made
    if isinstance(record, RefusalsRecord):
        last = max(last, record.until)
    if isinstance(record, RequestRecord):
        for obligation in record.obligations:
            if match := _RETAIN.fullmatch(obligation):
                days = max(days, int(match[1]))
        # A consent is in effect until it expires.
        if record.scope is not None and record.scope.expires is not None:
            last = max(last, record.scope.expires)
    try:
        return last + timedelta(days=days)
    except OverflowError:
        return datetime.max.replace(tzinfo=last.tzinfo)


def _record(number: int, leaf: bytes) -> AnyRecord:
    try:
        return decode(leaf)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"record {number} is not a valid record") from error
