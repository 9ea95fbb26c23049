"""Runs queued work, oldest first, as if it had just come in: decided anew, recorded, then kept."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InputInvalid, decode_request
from policies import CallerKind, Principal
from secure_gateway import respond
from secure_gateway.errors import Lost, NotBegun, Refusal, Unanswered
from secure_gateway.exchange import Answer, Call, Exchange
from secure_gateway.pipeline import Pipeline
from secure_gateway.record import Recorder, record_of
from secure_gateway.sealing import SealBroken
from secure_gateway.work.content import Failure, Result, Submission
from secure_gateway.work.errors import WorkFull, WorkStoreError
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import Work

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
POSTPONED_MAX_S: Final = 60
UNRECORDED_DELAY_S: Final = 5.0
DRAIN_S: Final = 5.0
REPEATED_AFTER_S: Final = 2

# What is refused before it is sent anywhere, or by a device that takes no more.
_NOT_NOW: Final = frozenset({Problem.DEVICE_OFFLINE, Problem.NODE_UNREACHABLE, Problem.OVERLOADED})


class WorkRunner:
    """Takes work from the store, at most `concurrency` pieces at a time.

    What ran is recorded before its result is kept. Work that was not begun, because nobody could run
    it now, waits until it expires. Where it may have run and left nothing behind, it is run again, but
    each such run counts as an attempt: work that brings nodes down must not go on doing so. Any other
    refusal is how the work ends.
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
        self._owed: list[tuple[Work, float]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run what is queued."""
        self._task = asyncio.create_task(self._dispatch(), name="work")

    def wake(self) -> None:
        """Look for work now, because some was added."""
        self._wake.set()

    async def close(self) -> None:
        """Take no more work; wait up to 5 s for what runs, and queue the rest again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._running:
            _, unfinished = await asyncio.wait(self._running, timeout=DRAIN_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._store.close()

    async def _dispatch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._settle()
                await self._store.tidy()
                await self._take()
            except WorkStoreError as error:
                # A full disk, say: what is queued stays, and is looked at again in a second.
                logger.warning("the database of work: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    async def _settle(self) -> None:
        """Queue again what could not be finished; the database may have refused that too until now."""
        while self._owed:
            await self._store.postpone(*self._owed[-1])
            self._owed.pop()

    async def _take(self) -> None:
        while len(self._running) < self._concurrency:
            work = await self._store.take()
            if work is None:
                return
            task = asyncio.create_task(self._serve(work), name=f"work {work.id}")
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its message may quote content. The work stays `running` until the next start.
            logger.error("unforeseen %s while work was run", type(error))

    async def _serve(self, work: Work) -> None:
        try:
            await self._run(work)
        except asyncio.CancelledError:
            await self._store.postpone(work, 0)
            raise
        except LogUnavailable:
            # It may have run, and is as if it had not: without its record nothing is kept.
            self._owed.append((work, UNRECORDED_DELAY_S))
        except WorkStoreError as error:
            logger.warning("the database of work: %s", error)
            self._owed.append((work, UNRECORDED_DELAY_S))

    async def _run(self, work: Work) -> None:
        try:
            submission = await self._store.submission(work)
        except SealBroken:
            await self._store.finish(
                work, Failure(problem=Problem.INTERNAL, detail="What was submitted does not open.")
            )
            return
        answer = await self._answer(work, submission)
        refusal = answer.exchange.refusal
        if refusal is None:
            await self._keep(work, answer)
        elif isinstance(refusal, Lost | Unanswered):
            if self._store.exhausted(work):
                await self._store.finish(work, _failure(refusal))
            else:
                await self._store.postpone(work, _delay_s(work, REPEATED_AFTER_S), counts=True)
        elif refusal.retry_after_s is not None and _not_begun(refusal):
            await self._store.postpone(work, _delay_s(work, refusal.retry_after_s))
        else:
            await self._store.finish(work, _failure(refusal))

    async def _answer(self, work: Work, submission: Submission) -> Answer:
        principal = submission.principal
        call = Call(
            action=Action.INFER,
            authorization=None,
            claims=submission.claims,
            started_ns=time.monotonic_ns(),
            model=submission.model,
            version=submission.version,
            wants_text=True,
            kept=True,
        )
        if principal.kind is CallerKind.DEVICE and not self._enrolled(principal.id):
            return await self._revoked(work, principal, call)
        decode = partial(decode_request, submission.body, header_length=submission.header_length)
        return await self._pipeline.serve_as(principal, call, decode, request_id=work.id)

    async def _revoked(self, work: Work, principal: Principal, call: Call) -> Answer:
        exchange = Exchange(call, work.id, datetime.now(UTC))
        exchange.principal = principal
        exchange.refusal = Refusal(
            Problem.TOKEN_INVALID, "The device is not enrolled any more; its work is not run."
        )
        return Answer(exchange, await self._recorder.record(exchange))

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
