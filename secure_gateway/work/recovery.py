"""What becomes of the work that was being run when its gateway ended."""

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.records import Problem
from secure_gateway.work.content import Failure
from secure_gateway.work.tables import COLUMNS, Work, WorkRow, WorkState, work_of


def cut_off(work: Work) -> Failure:
    """Return how work ends that was being run and may not be run again."""
    times = "once" if work.attempts == 1 else f"{work.attempts} times"
    return Failure(
        problem=Problem.EXECUTION_FAILED,
        detail=f"It was run {times} and may not be run again; the gateway ended during the last run.",
    )


async def queue_again(connection: AsyncConnection, attempts_max: int, now_ms: int) -> list[Work]:
    """Queue what was running; return the work that may not be run again, which stays as it is.

    That is what had its `attempts_max` runs, and what may have left something behind where it ran.
    """
    running = WorkRow.state == WorkState.RUNNING
    over = or_(WorkRow.attempts >= attempts_max, WorkRow.lasting)
    ended = [work_of(row) for row in await connection.execute(select(*COLUMNS).where(running, over))]
    await connection.execute(
        update(WorkRow)
        .where(running, ~over)
        .values(state=WorkState.QUEUED, not_before_ms=now_ms, started_ms=None)
    )
    return ended
