"""Runs queued work, oldest first, as if it had just come in: decided anew, recorded, then kept."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InputInvalid, decode_request
from policies import CallerKind, Principal
from secure_gateway import respond
from secure_gateway.errors import Lost, NotBegun, Refusal, Unanswered
from secure_gateway.exchange import Answer, Call, Exchange, Unrecorded
from secure_gateway.pipeline import Pipeline
from secure_gateway.record import Recorder, record_of
from secure_gateway.sealing import SealBroken
from secure_gateway.work.content import Failure, Result, Submission
from secure_gateway.work.errors import WorkFull, WorkStoreError
from secure_gateway.work.recovery import cut_off
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import Work

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
POSTPONED_MAX_S: Final = 60
UNWRITTEN_DELAY_S: Final = 1.0
DRAIN_S: Final = 5.0
REPEATED_AFTER_S: Final = 2

# What is refused before it is sent anywhere, or by a device that takes no more.
_NOT_NOW: Final = frozenset({Problem.DEVICE_OFFLINE, Problem.NODE_UNREACHABLE, Problem.OVERLOADED})

T = TypeVar("T")


class _Run:
    """One run of a piece of work, and what is known of how far it came."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.lasting = False
        """Whether it may have left something behind where it was sent."""
        self.counts = False
        """Whether it is over, and an attempt."""

    def ended(self, refusal: Refusal | None) -> None:
        """Take note of what it came to; what had not begun was none."""
        self.counts = refusal is None or not _not_begun(refusal)
        self.lasting = self.lasting and self.counts


class WorkRunner:
    """Takes work from the store, at most `concurrency` pieces at a time.

    What ran is recorded before its result is kept. While that cannot be written the result waits for
    it in memory, so that nothing runs twice, and no other work is begun. Work that was not begun,
    because nobody could run it now, waits until it expires. Where it may have run and left nothing
    behind, it is run again, but each such run counts as an attempt: work that brings nodes down must
    not go on doing so. Any other refusal is how the work ends.

    An attempt is counted as work is taken, and given back to work that was not begun or that a stop of
    the gateway cut off, unless it may have left something behind.
    """

    def __init__(
        self,
        store: WorkStore,
        pipeline: Pipeline,
        recorder: Recorder,
        *,
        concurrency: int,
        enrolled: Callable[[str], bool],
    ) -> None:
        """Run through `pipeline`; `enrolled` says whether `device:<id>` still is."""
        self._store = store
        self._pipeline = pipeline
        self._recorder = recorder
        self._concurrency = concurrency
        self._enrolled = enrolled
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._unrecorded = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run what is queued."""
        self._task = asyncio.create_task(self._dispatch(), name="work")

    def wake(self) -> None:
        """Look for work now, because some was added."""
        self._wake.set()

    async def close(self) -> None:
        """Take no more work; wait up to 5 s for what runs, and queue again what may run again."""
        self._closing = True
        self._wake.set()
        ending = set(self._running)
        if self._task is not None:
            # Not cancelled: work that it is taking would be nobody's, and an attempt.
            ending.add(self._task)
        if ending:
            _, unfinished = await asyncio.wait(ending, timeout=DRAIN_S)
            for task in unfinished & self._running:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._store.close()

    async def _dispatch(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                await self._store.tidy()
                await self._take()
            except WorkStoreError as error:
                # A full disk, say: what is queued stays, and is looked at again in a second.
                logger.warning("the database of work: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    async def _take(self) -> None:
        # What is begun while nothing can be recorded would only wait for its record.
        while len(self._running) < self._concurrency and self._records:
            work = await self._store.take()
            if work is None:
                return
            if self._closing:
                await self._store.postpone(work, 0)
                return
            task = asyncio.create_task(self._serve(work), name=f"work {work.id}")
            self._running.add(task)
            task.add_done_callback(self._ended)

    @property
    def _records(self) -> bool:
        return not self._unrecorded and self._recorder.writable

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its message may quote content. The work stays `running` until the next start.
            logger.error("unforeseen %s while work was run", type(error))

    async def _serve(self, work: Work) -> None:
        run = _Run(work)
        try:
            await self._run(run)
        except asyncio.CancelledError:
            await self._cut_off(run)
            raise

    async def _cut_off(self, run: _Run) -> None:
        """Leave the work as the next start shall find it."""
        try:
            if run.lasting or (run.counts and self._store.exhausted(run.work)):
                await self._store.finish(run.work, cut_off(run.work))
            else:
                await self._store.postpone(run.work, 0, counts=run.counts)
        except WorkStoreError as error:
            # It stays `running`, with its attempt: the next start sees to it.
            logger.warning("the database of work: %s", error)

    async def _run(self, run: _Run) -> None:
        work = run.work
        try:
            submission = await self._insist(lambda: self._store.submission(work))
        except SealBroken:
            await self._fail(
                work, Failure(problem=Problem.INTERNAL, detail="What was submitted does not open.")
            )
            return
        answer = await self._answer(run, submission)
        refusal = answer.exchange.refusal
        if refusal is None:
            await self._insist(lambda: self._keep(work, answer))
        elif _not_begun(refusal):
            delay_s = _delay_s(work, refusal.retry_after_s or REPEATED_AFTER_S)
            await self._insist(lambda: self._store.postpone(work, delay_s))
        elif isinstance(refusal, Lost | Unanswered) and not self._store.exhausted(work):
            delay_s = _delay_s(work, REPEATED_AFTER_S)
            await self._insist(lambda: self._store.postpone(work, delay_s, counts=True))
        else:
            await self._fail(work, _failure(refusal))

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do `step` once the database lets it: what a run came to is not lost for a full disk, say."""
        while True:
            try:
                return await step()
            except WorkStoreError as error:
                logger.warning("the database of work: %s", error)
            await asyncio.sleep(UNWRITTEN_DELAY_S)

    async def _fail(self, work: Work, failure: Failure) -> None:
        await self._insist(lambda: self._store.finish(work, failure))

    async def _answer(self, run: _Run, submission: Submission) -> Answer:
        work, principal = run.work, submission.principal
        call = Call(
            action=Action.INFER,
            authorization=None,
            claims=submission.claims,
            started_ns=time.monotonic_ns(),
            model=submission.model,
            version=submission.version,
            wants_text=True,
            kept=True,
            begin=partial(self._begin, run),
        )
        try:
            if principal.kind is CallerKind.DEVICE and not self._enrolled(principal.id):
                answer = await self._revoked(work, principal, call)
            else:
                decode = partial(
                    decode_request, submission.body, header_length=submission.header_length
                )
                answer = await self._pipeline.serve_as(principal, call, decode, request_id=work.id)
        except Unrecorded as unrecorded:
            exchange = unrecorded.exchange
            run.ended(exchange.refusal)
            return Answer(exchange, await self._record_at_last(exchange))
        run.ended(answer.exchange.refusal)
        return answer

    async def _begin(self, run: _Run) -> None:
        try:
            await self._store.mark_lasting(run.work)
        except WorkStoreError as error:
            logger.warning("the database of work: %s", error)
            raise Refusal(
                Problem.OVERLOADED, "That it runs cannot be written down.", retry_after_s=1
            ) from error
        run.lasting = True

    async def _record_at_last(self, exchange: Exchange) -> str:
        """Return where the record stands, once the log takes it."""
        self._unrecorded += 1
        try:
            while True:
                try:
                    await asyncio.sleep(UNWRITTEN_DELAY_S)
                except asyncio.CancelledError:
                    exchange.abandoned = True
                    self._recorder.note(record_of(exchange))
                    raise
                # The recorder counts what it could not record.
                with contextlib.suppress(LogUnavailable):
                    return await self._recorder.record(exchange)
        finally:
            self._unrecorded -= 1

    async def _revoked(self, work: Work, principal: Principal, call: Call) -> Answer:
        exchange = Exchange(call, work.id, datetime.now(UTC))
        exchange.principal = principal
        exchange.refusal = Refusal(
            Problem.TOKEN_INVALID, "The device is not enrolled any more; its work is not run."
        )
        try:
            return Answer(exchange, await self._recorder.record(exchange))
        except LogUnavailable as error:
            raise Unrecorded(exchange) from error

    async def _keep(self, work: Work, answer: Answer) -> None:
        try:
            _, headers, body = respond.http(answer)
            exchange = answer.exchange
            result = Result(
                headers=tuple(headers),
                body=body,
                record=record_of(exchange),
                facts=exchange.facts,
                candidates=exchange.candidates,
            )
            await self._store.finish(work, result, withheld=exchange.withheld)
        except InputInvalid as error:
            failure = Failure(problem=Problem.INPUT_INVALID, detail=str(error))
            await self._store.finish(work, failure)
        except WorkFull as error:
            failure = Failure(problem=Problem.OVERLOADED, detail=f"It ran, but {error}.")
            await self._store.finish(work, failure)


def _not_begun(refusal: Refusal) -> bool:
    """Say whether nothing was run, and something may be later."""
    if isinstance(refusal, Lost | Unanswered) or refusal.retry_after_s is None:
        return False
    return isinstance(refusal, NotBegun) or refusal.problem in _NOT_NOW


def _delay_s(work: Work, first_s: int) -> int:
    return min(POSTPONED_MAX_S, first_s << min(work.postponed, 10))


def _failure(refusal: Refusal) -> Failure:
    return Failure(
        problem=refusal.problem,
        detail=refusal.detail,
        policies=refusal.policies,
        citations=refusal.citations,
    )
