"""Which requests run together, how their rows are joined, and how answers are cut apart: pure rules."""

import asyncio
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from msgspec import Struct

from inference_node.errors import RowsMixed
from inference_node.oip import Array

Feed = Mapping[str, Array]
Trims = Mapping[str, Sequence[tuple[int, str, int]]]
"""By output: an axis, and the input and axis whose size it has; so padding is cut off again."""


class Ragged(StrEnum):
    """What is done with requests that differ in other dimensions than the first.

    `separate` runs them in batches of their own, `refuse` refuses what differs from what waits, `pad`
    fills up with zeros (empty text) and cuts the answers back; what would be padding for the greater
    part runs separately.
    """

    SEPARATE = "separate"
    REFUSE = "refuse"
    PAD = "pad"


class QueuePolicy(Struct, frozen=True, kw_only=True):
    """How requests wait: Triton's dynamic_batching, times in seconds.

    Priorities run from 1, the highest, to `priority_levels`; 0 levels means that there are none.
    """

    max_queue_delay_s: float = 0.0
    priority_levels: int = 0
    default_priority: int = 0
    timeout_s: float = 0.0
    delays_late: bool = False
    timeout_override: bool = True
    max_queue_size: int | None = None

    def priority(self, asked: int) -> int:
        """Return the priority of a request that asks for `asked`; 0 asks for the default."""
        return asked if 0 < asked <= self.priority_levels else self.default_priority

    def timeout(self, asked_s: float) -> float:
        """Return the time in the queue of a request that asks for `asked_s`; 0 is no limit.

        As with Triton, a request may shorten the configured time and never lengthen it.
        """
        if asked_s and self.timeout_override and (not self.timeout_s or asked_s < self.timeout_s):
            return asked_s
        return self.timeout_s


PADDED_MAX: Final = 2
"""How many times its own size a padded batch may take; one long request must not blow up 63 short."""


class Item:
    """One request that waits; times are those of the batcher's clock, in seconds.

    Past `deadline` it is not begun, past `due` nobody wants its answer. `expires` is when the queue
    looks at it: its deadline, or earlier if it is then only to be delayed. `rank` orders the queue,
    lowest first: twice the priority, and one more for what is delayed.
    """

    __slots__ = (
        "deadline",
        "due",
        "expires",
        "feed",
        "future",
        "outputs",
        "queued_at",
        "rank",
        "rows",
    )

    def __init__(
        self,
        feed: Feed,
        outputs: tuple[str, ...],
        rows: int,
        due: float | None,
        future: asyncio.Future[list[Array]],
        queued_at: float,
    ) -> None:
        self.feed = feed
        self.outputs = outputs
        self.rows = rows
        self.due = self.deadline = self.expires = due
        self.future = future
        self.queued_at = queued_at
        self.rank = 0


def shapes(item: Item) -> tuple[Any, ...]:
    """Return the dimensions behind the first, of every input."""
    return tuple([(name, array.shape[1:]) for name, array in item.feed.items()])


def fits(item: Item, batch: Sequence[Item], *, pad: bool) -> bool:
    """Whether `item` may run in `batch`, as far as shapes go."""
    leader = batch[0]
    if item.outputs != leader.outputs:
        return False
    feed = leader.feed
    for name, array in item.feed.items():
        other = feed[name]
        if array.ndim != other.ndim if pad else array.shape[1:] != other.shape[1:]:
            return False
    return not pad or _little_padding([*batch, item])


def _little_padding(batch: Sequence[Item]) -> bool:
    rows = sum(item.rows for item in batch)
    for name in batch[0].feed:
        arrays = [item.feed[name] for item in batch]
        if rows * math.prod(_largest(arrays)) > PADDED_MAX * sum(array.size for array in arrays):
            return False
    return True


def _largest(arrays: Sequence[Array]) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))


def enqueue(queue: deque[Item], item: Item) -> None:
    """Put `item` behind all of its rank and above, ahead of all below."""
    if not queue or queue[-1].rank <= item.rank:
        queue.append(item)
        return
    position = len(queue)
    while position and queue[position - 1].rank > item.rank:
        position -= 1
    queue.insert(position, item)


def delay(queue: deque[Item], item: Item) -> None:
    """Put `item`, whose time in the queue is over, behind all others of its priority and above."""
    item.expires = item.deadline
    item.rank |= 1
    enqueue(queue, item)


def waits_longer(queue: Collection[Item], item: Item, runs: int, max_rows: int) -> bool:
    """Whether `runs` full batches or more are ahead of `item` in `queue`."""
    # Every request that waits fills at most one batch: the queue is seldom worth counting.
    if len(queue) < runs:
        return False
    rows, enough = 0, runs * max_rows
    for other in queue:
        if other.rank > item.rank:
            break
        if not other.future.done():
            rows += min(other.rows, max_rows)
            if rows >= enough:
                return True
    return False


def leaves_at(queue: Collection[Item], max_rows: int, delay_s: float, average_s: float) -> float:
    """Return until when the next batch of `queue` may wait for company; a full one does not wait.

    What has a time limit leaves while it can still be met.
    """
    rows = 0
    until = math.inf
    for item in queue:
        if item.future.done():
            continue
        rows += item.rows
        if rows >= max_rows:
            break
        until = min(until, item.queued_at + delay_s)
        if item.expires is not None:
            until = min(until, item.expires - 2 * average_s - delay_s)
    return until if 0 < rows < max_rows else -math.inf


def take_batch(
    queue: deque[Item], max_rows: int, now: float, *, pad: bool = False
) -> tuple[list[Item], list[Item]]:
    """Take the next batch off `queue`; return it and the items whose deadline has passed.

    The first item leads; those behind it join while they fit and rows are left. An item that does not
    fit ends the batch, so that none is overtaken. One that is only to be delayed goes to its new place
    and may still run in this batch. Cancelled items are dropped.
    """
    batch: list[Item] = []
    late: list[Item] = []
    rows = 0
    while queue:
        item = queue[0]
        if item.future.done():
            queue.popleft()
            continue
        if item.expires is not None and item.expires <= now:
            queue.popleft()
            if item.deadline is not None and item.deadline <= now:
                late.append(item)
            else:
                delay(queue, item)
            continue
        if batch and (rows + item.rows > max_rows or not fits(item, batch, pad=pad)):
            break
        batch.append(queue.popleft())
        rows += item.rows
    return batch, late


def join(batch: Sequence[Item], *, pad: bool = False) -> Feed:
    """Return one feed with the rows of every item, in order; with `pad`, filled up to the largest."""
    if len(batch) == 1:
        return batch[0].feed
    names = batch[0].feed
    if pad:
        return {name: _padded([item.feed[name] for item in batch]) for name in names}
    return {name: np.concatenate([item.feed[name] for item in batch]) for name in names}


def _padded(arrays: Sequence[Array]) -> Array:
    inner = _largest(arrays)
    rows = sum(len(array) for array in arrays)
    dtype = arrays[0].dtype
    joined = np.full((rows, *inner), "" if dtype.kind == "O" else 0, dtype=dtype)
    start = 0
    for array in arrays:
        part = (slice(start, start + len(array)), *(slice(size) for size in array.shape[1:]))
        joined[part] = array
        start += len(array)
    return joined


def split(
    batch: Sequence[Item], results: Sequence[Array], trims: Trims | None = None
) -> list[list[Array]]:
    """Return each item's own rows of `results`, without what padding added.

    Raises:
        RowsMixed: if the model did not answer one row for each row.
    """
    if len(batch) == 1:
        return [list(results)]
    total = sum(item.rows for item in batch)
    if any(len(result) != total for result in results):
        raise RowsMixed("the model mixes rows and cannot be batched")
    parts = []
    start = 0
    for item in batch:
        part = [result[start : start + item.rows] for result in results]
        if trims:
            _trim(part, item, trims)
        parts.append(part)
        start += item.rows
    return parts


def _trim(part: list[Array], item: Item, trims: Trims) -> None:
    for position, output in enumerate(item.outputs):
        for axis, name, own in trims.get(output, ()):
            size = item.feed[name].shape[own]
            part[position] = part[position][(*(slice(None),) * axis, slice(size))]
