"""Where work waits: one SQLite file for each gateway replica, its contents sealed.

In the clear are only an identifier, the principal's, the state, times and sizes. Whoever takes the
file learns who had work done, and when. `secure_delete` overwrites what is deleted.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from msgspec import structs
from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from secure_gateway.sealing import Sealer
from secure_gateway.work.content import Failure, Result, Submission, seal, unseal
from secure_gateway.work.database import WorkDatabase, whole
from secure_gateway.work.errors import WorkFull, WorkStoreError
from secure_gateway.work.recovery import cut_off, queue_again
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.tables import (
    COLUMNS,
    LIVE,
    SealedRow,
    Work,
    WorkRow,
    WorkState,
    time_of,
    work_of,
)

REVIEWS_SHOWN: Final = 100


class WorkStore:
    """Keeps work through its states; each change is durable when its method returns.

    One process owns the file: it also owns the replica's log, which admits one writer.
    """

    def __init__(
        self,
        path: Path,
        sealer: Sealer,
        settings: WorkSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sealer = sealer
        self._settings = settings
        self._clock = clock
        self._reserved: list[tuple[str, int]] = []
        # The write-ahead log may hold what was deleted before the last process was killed.
        self._erased = 1
        self._database = WorkDatabase(path)

    @classmethod
    async def open(
        cls,
        path: Path,
        sealer: Sealer,
        settings: WorkSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> "WorkStore":
        """Open the database at `path`; what was running when the last process ended is queued again.

        Raises:
            WorkStoreError: if the file cannot be used or is of a later Bedside.
        """
        store = cls(path, sealer, settings, clock=clock)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await store._database.create()
            await store._recover()
        except BaseException as error:
            await store.close()
            if isinstance(error, OSError):
                raise WorkStoreError(f"the database {path} cannot be made") from error
            raise
        return store

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    @asynccontextmanager
    async def room(self, principal: str, size_bytes: int) -> AsyncIterator[None]:
        """Hold room for work of `size_bytes` while it is decided and added.

        Raises:
            WorkFull: if a limit is reached.
        """
        held = await self._held() + [(name, 1, size) for name, size in self._reserved]
        # No await from here until it is reserved: two callers cannot take the same room.
        settings = self._settings
        if sum(count for _, count, _ in held) >= settings.limit:
            raise WorkFull(f"{settings.limit} pieces of work are kept already")
        if sum(count for name, count, _ in held if name == principal) >= settings.limit_for_principal:
            raise WorkFull(
                f"{settings.limit_for_principal} pieces of the caller's work are kept already"
            )
        if sum(size for _, _, size in held) + size_bytes > settings.limit_bytes:
            raise WorkFull(f"more than {settings.limit_bytes} bytes of work would be kept")
        reserved = (principal, size_bytes)
        self._reserved.append(reserved)
        try:
            yield
        finally:
            self._reserved.remove(reserved)

    @whole
    async def add(self, work: UUID, submission: Submission, lifetime_s: int) -> Work:
        """Queue a submission that was permitted; the caller holds room for it."""
        principal = submission.principal.id
        sealed = await seal(self._sealer, work, principal, submission)
        now = self._now_ms()
        async with self._database.begin() as connection:
            await connection.execute(
                insert(WorkRow).values(
                    id=str(work),
                    principal=principal,
                    state=WorkState.QUEUED,
                    submitted_ms=now,
                    not_before_ms=now,
                    expires_ms=now + lifetime_s * 1000,
                    size_bytes=len(sealed),
                )
            )
            await connection.execute(insert(SealedRow).values(work_id=str(work), content=sealed))
        return Work(
            id=work,
            principal=principal,
            state=WorkState.QUEUED,
            submitted=time_of(now),
            expires=time_of(now + lifetime_s * 1000),
        )

    @whole
    async def take(self) -> Work | None:
        """Return the oldest queued work that may run now, as running; None if there is none."""
        now = self._now_ms()
        oldest = (
            select(WorkRow.sequence)
            .where(
                WorkRow.state == WorkState.QUEUED,
                WorkRow.not_before_ms <= now,
                WorkRow.expires_ms > now,
            )
            .order_by(WorkRow.sequence)
            .limit(1)
            .scalar_subquery()
        )
        async with self._database.begin() as connection:
            rows = await connection.execute(
                update(WorkRow)
                .where(WorkRow.sequence == oldest)
                .values(state=WorkState.RUNNING, started_ms=now, attempts=WorkRow.attempts + 1)
                .returning(*COLUMNS)
            )
            row = rows.one_or_none()
        return None if row is None else work_of(row)

    @whole
    async def find(self, work: UUID, principal: str | None) -> Work | None:
        """Return the work, or None if there is none of this principal (None: of anybody)."""
        wanted = select(*COLUMNS).where(WorkRow.id == str(work))
        if principal is not None:
            wanted = wanted.where(WorkRow.principal == principal)
        async with self._database.begin() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        if row is None:
            return None
        found = work_of(row)
        if found.state in LIVE and row.expires_ms <= self._now_ms():
            # Its time is over, though nobody has tidied up since.
            return structs.replace(found, state=WorkState.EXPIRED)
        return found

    @whole
    async def in_review(self) -> list[Work]:
        """Return what waits for the review of a second person, oldest first, 100 at most."""
        wanted = (
            select(*COLUMNS)
            .where(WorkRow.state == WorkState.IN_REVIEW, WorkRow.expires_ms > self._now_ms())
            .order_by(WorkRow.sequence)
            .limit(REVIEWS_SHOWN)
        )
        async with self._database.begin() as connection:
            return [work_of(row) for row in await connection.execute(wanted)]

    async def submission(self, work: Work) -> Submission:
        """Return what was submitted.

        Raises:
            SealBroken: if it does not open.
        """
        sealed = await self._sealed(work)
        return await unseal(self._sealer, work.id, work.principal, sealed, Submission)

    async def result(self, work: Work) -> Result:
        """Return the result of work that is done.

        Raises:
            SealBroken: if it does not open.
        """
        return await unseal(self._sealer, work.id, work.principal, await self._sealed(work), Result)

    async def failure(self, work: Work) -> Failure:
        """Return why work failed.

        Raises:
            SealBroken: if it does not open.
        """
        return await unseal(self._sealer, work.id, work.principal, await self._sealed(work), Failure)

    @whole
    async def finish(self, work: Work, content: Result | Failure, *, withheld: bool = False) -> bool:
        """Keep what a run led to, in place of its input; False if nobody waits for it any more.

        A result that is `withheld` waits for a second person before it can be handed over.

        Raises:
            WorkFull: if the result would exceed the limit; the work stays as it is.
        """
        sealed = await seal(self._sealer, work.id, work.principal, content)
        done = isinstance(content, Result)
        ready = WorkState.IN_REVIEW if withheld else WorkState.DONE
        async with self._database.begin() as connection:
            rows = await connection.execute(
                # What has ended takes no room, and is many times as much.
                select(func.sum(WorkRow.size_bytes)).where(
                    WorkRow.state.in_(LIVE), WorkRow.id != str(work.id)
                )
            )
            others = int(rows.scalar_one_or_none() or 0) + sum(size for _, size in self._reserved)
            # A failure is a few hundred bytes, and must always find room.
            if done and others + len(sealed) > self._settings.limit_bytes:
                raise WorkFull("the result is larger than the room that is left for it")
            finished = await connection.execute(
                update(WorkRow)
                .where(WorkRow.id == str(work.id), WorkRow.state == WorkState.RUNNING)
                .values(
                    state=ready if done else WorkState.FAILED,
                    finished_ms=self._now_ms(),
                    size_bytes=len(sealed),
                    problem=None if isinstance(content, Result) else content.problem,
                )
            )
            if not _one(finished):
                return False
            await self._erase(connection, work.id)
            await connection.execute(insert(SealedRow).values(work_id=str(work.id), content=sealed))
        return True

    def exhausted(self, work: Work) -> bool:
        """Say whether the run that `work` was taken for is the last that it may have."""
        return work.attempts >= self._settings.attempts_max

    @whole
    async def mark_lasting(self, work: Work) -> None:
        """Say that the run `work` was taken for may leave something behind, before it begins."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(WorkRow)
                .where(WorkRow.id == str(work.id), WorkRow.state == WorkState.RUNNING)
                .values(lasting=True)
            )

    @whole
    async def postpone(self, work: Work, delay_s: float, *, counts: bool = False) -> None:
        """Queue running work again, for after `delay_s`; `counts` says whether this was an attempt."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(WorkRow)
                .where(WorkRow.id == str(work.id), WorkRow.state == WorkState.RUNNING)
                .values(
                    state=WorkState.QUEUED,
                    started_ms=None,
                    not_before_ms=self._now_ms() + int(delay_s * 1000),
                    attempts=WorkRow.attempts - (0 if counts else 1),
                    postponed=WorkRow.postponed + 1,
                    lasting=False,
                )
            )

    async def hand_over(self, work: Work) -> bool:
        """Delete the result because it is about to be sent; False if it was not there any more.

        Who asked before it expired is given it: the record that says so is there already.
        """
        return await self._end(work, WorkState.FETCHED, (WorkState.DONE,))

    @whole
    async def release(self, work: Work) -> bool:
        """Let a withheld result be handed over; False if it was not there any more."""
        async with self._database.begin() as connection:
            released = await connection.execute(
                update(WorkRow)
                .where(
                    WorkRow.id == str(work.id),
                    WorkRow.state == WorkState.IN_REVIEW,
                    WorkRow.expires_ms > self._now_ms(),
                )
                .values(state=WorkState.DONE)
            )
            return _one(released)

    async def refuse(self, work: Work) -> bool:
        """Delete a result that is not to be handed over; False if it was not there any more."""
        return await self._end(work, WorkState.REFUSED, (WorkState.IN_REVIEW, WorkState.DONE))

    async def cancel(self, work: Work) -> bool:
        """Delete what is kept of the work; False if there was nothing left to cancel."""
        return await self._end(work, WorkState.CANCELLED, LIVE)

    @whole
    async def tidy(self) -> None:
        """Delete what has expired, and forget work that ended long ago."""
        now = self._now_ms()
        expired = select(WorkRow.id).where(WorkRow.state.in_(LIVE), WorkRow.expires_ms <= now)
        async with self._database.begin() as connection:
            gone = await connection.execute(delete(SealedRow).where(SealedRow.work_id.in_(expired)))
            await connection.execute(
                update(WorkRow)
                .where(WorkRow.state.in_(LIVE), WorkRow.expires_ms <= now)
                .values(state=WorkState.EXPIRED, size_bytes=0)
            )
            await connection.execute(
                delete(WorkRow).where(WorkRow.expires_ms <= now - self._settings.remember_s * 1000)
            )
        self._erased += gone.rowcount
        if (erased := self._erased) and await self._database.cut_journal():
            # What was deleted meanwhile is seen to the next time.
            self._erased -= erased

    @whole
    async def _held(self) -> list[tuple[str, int, int]]:
        """Return how many pieces each principal has, and of how many bytes."""
        async with self._database.begin() as connection:
            rows = await connection.execute(
                select(WorkRow.principal, func.count(), func.sum(WorkRow.size_bytes))
                .where(WorkRow.state.in_(LIVE))
                .group_by(WorkRow.principal)
            )
            return [(row[0], int(row[1]), int(row[2])) for row in rows]

    @whole
    async def _end(self, work: Work, state: WorkState, before: tuple[WorkState, ...]) -> bool:
        async with self._database.begin() as connection:
            ended = await connection.execute(
                update(WorkRow)
                .where(WorkRow.id == str(work.id), WorkRow.state.in_(before))
                # It is over now, so it is forgotten as long after this as what expires by itself.
                .values(
                    state=state, size_bytes=0, expires_ms=func.min(WorkRow.expires_ms, self._now_ms())
                )
            )
            if not _one(ended):
                return False
            await self._erase(connection, work.id)
        return True

    async def _erase(self, connection: AsyncConnection, work: UUID) -> None:
        await connection.execute(delete(SealedRow).where(SealedRow.work_id == str(work)))
        self._erased += 1

    @whole
    async def _sealed(self, work: Work) -> bytes:
        async with self._database.begin() as connection:
            rows = await connection.execute(
                select(SealedRow.content).where(SealedRow.work_id == str(work.id))
            )
            # What is gone does not open either.
            return rows.scalar_one_or_none() or b""

    async def _recover(self) -> None:
        async with self._database.begin() as connection:
            ended = await queue_again(connection, self._settings.attempts_max, self._now_ms())
        for work in ended:
            await self.finish(work, cut_off(work))
        await self.tidy()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _one(result: CursorResult[Any]) -> bool:
    return result.rowcount == 1
