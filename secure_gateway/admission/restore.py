"""What limits had counted before a restart, read from the log: what counts has a record there."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from audit import Log
from audit.records import Action, Flag, Problem, RequestRecord, decode
from audit.tiles import WIDTH
from secure_gateway.admission.break_glass import WINDOW_S
from secure_gateway.admission.door import LIMITED


def let_in_today(log: Log) -> list[str]:
    """Return the principal of each request that was let in since midnight UTC; blocking.

    Work that ran was let in when it was submitted, under the same identifier.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    let_in = [record for record in _counted_since(log, midnight) if record.action in LIMITED]
    submitted = {record.id for record in let_in if record.action is Action.SUBMIT}
    return [
        record.principal
        for record in let_in
        if record.principal is not None
        and (record.action is Action.SUBMIT or record.id not in submitted)
    ]


def emergencies_lately(log: Log) -> list[tuple[str, float]]:
    """Return caller and age in seconds of each use of break-glass that still counts; blocking."""
    now = datetime.now(UTC)
    return [
        (record.principal, max(0.0, (now - record.time).total_seconds()))
        for record in _counted_since(log, now - timedelta(seconds=WINDOW_S))
        if record.principal is not None and Flag.BREAK_GLASS in record.flags
    ]


def _counted_since(log: Log, moment: datetime) -> Iterator[RequestRecord]:
    """Yield what known callers asked since `moment` and no limit refused, the newest 256 first."""
    for start in range((log.size - 1) // WIDTH * WIDTH, log.minimum_index - 1, -WIDTH):
        records = [decode(leaf) for leaf in log.entries(start, start + WIDTH)]
        for record in records:
            if (
                isinstance(record, RequestRecord)
                and record.principal is not None
                and record.problem is not Problem.RATE_LIMITED
                and record.time >= moment
            ):
                yield record
        if records and records[0].time < moment:
            break
