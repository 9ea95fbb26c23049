"""What limits had counted before a restart, read from the log: what counts has a record there."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from audit import Log
from audit.records import Flag, Problem, RequestRecord, decode
from audit.tiles import WIDTH
from secure_gateway.admission.break_glass import WINDOW_S
from secure_gateway.admission.door import LIMITED

# A model that the site does not serve, and a caller that may not ask for placements at all.
_BETWEEN: Final = frozenset({Problem.MODEL_UNKNOWN, Problem.POLICY_REFUSED})


def let_in_today(log: Log) -> list[str]:
    """Return the principal of each request that was let in since midnight UTC; blocking.

    Work that ran was let in when it was submitted, under the same identifier.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    let_in = (record for record in _asked_since(log, midnight) if _came_in(record))
    return [principal for principal, _ in _once(let_in)]


def emergencies_lately(log: Log) -> list[tuple[str, float]]:
    """Return caller and age in seconds of each use of break-glass that still counts; blocking.

    The run of work, its fetch and the end of a stream bear the flag too, under the identifier of what
    was asked first, and that alone counted.
    """
    now = datetime.now(UTC)
    flagged = (
        record
        for record in _asked_since(log, now - timedelta(seconds=WINDOW_S))
        if record.action in LIMITED
        and Flag.BREAK_GLASS in record.flags
        and record.problem is not Problem.RATE_LIMITED
    )
    return [(caller, max(0.0, (now - time).total_seconds())) for caller, time in _once(flagged)]


def _came_in(record: RequestRecord) -> bool:
    """Say whether a request was let in at the door, served or not.

    Right behind the door its model is found. What is refused before, for a limit or for headers that
    mean nothing, say, is recorded without one; so are the two refusals that come between.
    """
    return record.action in LIMITED and (record.model is not None or record.problem in _BETWEEN)


def _once(records: Iterable[RequestRecord]) -> list[tuple[str, datetime]]:
    """Return caller and time of the first record of each identifier: work may run several times."""
    first: dict[UUID, tuple[str, datetime]] = {}
    for record in records:
        known = first.get(record.id)
        if record.principal is not None and (known is None or record.time < known[1]):
            first[record.id] = record.principal, record.time
    return list(first.values())


def _asked_since(log: Log, moment: datetime) -> Iterator[RequestRecord]:
    """Yield what known callers asked since `moment`, the newest 256 first."""
    for start in range((log.size - 1) // WIDTH * WIDTH, log.minimum_index - 1, -WIDTH):
        records = [decode(leaf) for leaf in log.entries(start, start + WIDTH)]
        for record in records:
            if (
                isinstance(record, RequestRecord)
                and record.principal is not None
                and record.time >= moment
            ):
                yield record
        if records and records[0].time < moment:
            break
