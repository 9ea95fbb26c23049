"""Brings the index up to its logs, and checks that it says what they say."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from audit.errors import IndexBusy, IndexDiffers, VerificationError
from audit.index.counting import Counts, count_rows
from audit.index.store import RecordIndex
from audit.index.tables import row_of
from audit.minimum import read_minimum
from audit.published import read_bundle
from audit.records import decode
from audit.source import LogSource
from audit.tiles import WIDTH
from audit.verify import read_checkpoint, verify_tree

BUNDLES_AT_ONCE: Final = 16
ANALYSE_EVERY: Final = 10_000
BUSY_WAIT_S: Final = 0.05
BUSY_TRIES: Final = 100


class Indexed(Struct, frozen=True, kw_only=True):
    """How far a log is indexed, how many of its records were added just now, and where it begins."""

    origin: str
    size: int
    added: int
    minimum: int = 0


async def catch_up(index: RecordIndex, sources: Sequence[LogSource]) -> list[Indexed]:
    """Add what the logs published since the last time, and forget what was pruned.

    Another process may be doing the same.

    Raises:
        VerificationError: if a checkpoint does not verify, or a record is not one.
        IndexDiffers: if the index holds more of a log than the log does.
        IndexUnavailable: if the index cannot be written.
    """
    for _ in range(BUSY_TRIES):
        try:
            return [await _catch_up(index, source) for source in sources]
        except IndexBusy:
            await asyncio.sleep(BUSY_WAIT_S)
    return [await _catch_up(index, source) for source in sources]


async def _catch_up(index: RecordIndex, source: LogSource) -> Indexed:
    checkpoint = await asyncio.to_thread(read_checkpoint, source.folder, source.verifier)
    origin, size = checkpoint.origin, checkpoint.size
    minimum = read_minimum(source.folder, source.verifier).index
    if minimum:
        await index.prune(origin, minimum)
    start = (await index.sizes()).get(origin, 0)
    if start > size:
        raise IndexDiffers(f"the index holds {start} records of {origin}, the log {size}")
    position = start
    chunks = _rows(source, origin, start, size)
    while rows := await asyncio.to_thread(next, chunks, None):
        await index.add(origin, position, rows)
        position += len(rows)
    if start // ANALYSE_EVERY != size // ANALYSE_EVERY:
        await index.analyze()
    return Indexed(origin=origin, size=size, added=size - start, minimum=minimum)


async def rebuild(index: RecordIndex, sources: Sequence[LogSource]) -> list[Indexed]:
    """Forget the index and make it again from the logs; raises as `catch_up`."""
    await index.clear()
    return await catch_up(index, sources)


async def check(index: RecordIndex, sources: Sequence[LogSource]) -> list[Indexed]:
    """Verify the logs, then compare every row with the record that it was made from.

    Raises:
        VerificationError: if a log does not verify.
        IndexDiffers: naming the first record that the index does not have, or has otherwise.
    """
    then = await index.held()
    known = then.sizes
    origins = {source.verifier.name for source in sources}
    for origin in known.keys() - origins:
        raise IndexDiffers(f"the index holds records of {origin}, which is no log of this site")
    reached = []
    counted: Counts = Counter()
    for source in sources:
        checkpoint = read_checkpoint(source.folder, source.verifier)
        minimum = read_minimum(source.folder, source.verifier).index
        await asyncio.to_thread(verify_tree, source.folder, checkpoint, minimum)
        origin, size = checkpoint.origin, known.get(checkpoint.origin, 0)
        if size > checkpoint.size:
            raise IndexDiffers(f"the index holds {size} records of {origin}, the log {checkpoint.size}")
        if early := [row for row in await index.leaves(origin, 0, 1) if row["position"] < minimum]:
            raise IndexDiffers(f"the index holds {origin}#{early[0]['position']}, which was pruned")
        position = min(minimum, size)
        chunks = _rows(source, origin, position, size)
        while rows := await asyncio.to_thread(next, chunks, None):
            held = await index.leaves(origin, position, len(rows))
            _compare(origin, position, rows, held)
            counted += count_rows(rows)
            position += len(rows)
        if then.ends.get(origin, 0) > size:
            raise IndexDiffers(f"the index holds {origin}#{then.ends[origin] - 1}, the log does not")
        reached.append(Indexed(origin=origin, size=size, added=0, minimum=minimum))
    if then.counts != counted:
        raise IndexDiffers("the index's counts by the hour are not those of its records")
    return reached


def _compare(
    origin: str, start: int, rows: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]]
) -> None:
    for offset, row in enumerate(rows):
        own = held[offset] if offset < len(held) else None
        if own is None or {**own, "leaf": bytes(own["leaf"])} != row:
            word = "lacks" if own is None or own["position"] != row["position"] else "differs in"
            raise IndexDiffers(f"the index {word} {origin}#{start + offset}")


def _rows(source: LogSource, origin: str, start: int, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the records from `start` up to `size`, some thousand at a time."""
    rows: list[dict[str, Any]] = []
    for bundle in range(start // WIDTH, -(-size // WIDTH)):
        first = bundle * WIDTH
        leaves = read_bundle(source.folder, bundle, min(WIDTH, size - first))
        for position, leaf in enumerate(leaves, first):
            if position >= start:
                try:
                    rows.append(row_of(origin, position, leaf, decode(leaf)))
                except msgspec.MsgspecError as error:
                    raise VerificationError(f"record {position} is not a valid record") from error
        if len(rows) >= BUNDLES_AT_ONCE * WIDTH:
            yield rows
            rows = []
    if rows:
        yield rows
