"""What runs queued work: how often, what of it is recorded and kept, and when nothing can be written.

Seen to fail: with the dispatcher cancelled by `close`, work that it was taking counted as run, and it
ended if that was its only attempt.
"""

import asyncio
from datetime import UTC, datetime

import pytest
from support.stored_work import ADAMS, BODY, PHONE, add

from audit import LogUnavailable
from audit.records import Action, Outcome, Problem, decode
from audit.verify import read_entries
from inference_node import InferResponse, decode_request
from secure_gateway.errors import Lost, Refusal, Unanswered
from secure_gateway.exchange import Answer, Exchange, Unrecorded
from secure_gateway.record import Recorder
from secure_gateway.sealing import Sealer
from secure_gateway.work.content import Failure
from secure_gateway.work.errors import WorkStoreError
from secure_gateway.work.runner import WorkRunner
from secure_gateway.work.tables import WorkState


class Pipeline:
    """Stands in for the pipeline: answers as it was told to, one instruction for each run."""

    def __init__(self, *instructions):
        self.instructions = list(instructions)
        self.calls = []
        self.running = 0
        self.most = 0
        self._changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self.lasting = False
        """Whether what runs may leave something behind."""

    async def reaches(self, *, calls=0, running=0):
        """Wait until there were `calls` and exactly `running` of them have not ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= calls and self.running == running)

    async def _change(self, by):
        async with self._changed:
            self.running += by
            self.most = max(self.most, self.running)
            self._changed.notify_all()

    async def serve_as(self, principal, call, decode, *, request_id):
        self.calls.append((principal, call, decode()))
        instruction = self.instructions.pop(0) if self.instructions else None
        await self._change(1)
        try:
            await self.gate.wait()
        finally:
            await self._change(-1)
        exchange = Exchange(call, request_id, datetime.now(UTC))
        exchange.principal = principal
        exchange.request = decode()
        unwritten = isinstance(instruction, Unwritten)
        if unwritten:
            instruction = instruction.refusal
        if self.lasting:
            try:
                await call.begin()
            except Refusal as refusal:
                instruction = refusal
        if isinstance(instruction, Refusal):
            exchange.refusal = instruction
        elif instruction is not None:
            raise instruction
        else:
            exchange.response = InferResponse(
                model_name="sepsis", model_version="1", id=exchange.request.id, outputs=[]
            )
        if unwritten:
            raise Unrecorded(exchange)
        return Answer(exchange, "clinic/gateway-1#0")


def runner(store, log, pipeline, *, concurrency=2, enrolled=lambda _: True):
    made = WorkRunner(store, pipeline, Recorder(log), concurrency=concurrency, enrolled=enrolled)
    made.start()
    return made


async def until(store, work, state):
    while True:
        found = await store.find(work.id, work.principal)
        if found.state is state:
            return found
        await asyncio.sleep(0.005)


async def test_it_runs_as_who_submitted_it_with_what_was_submitted(store, log):
    work, pipeline = await add(store), Pipeline()
    running = runner(store, log, pipeline)
    await until(store, work, WorkState.DONE)
    ((principal, call, request),) = pipeline.calls
    assert principal == ADAMS
    assert (call.action, call.authorization, call.model) == (Action.INFER, None, "sepsis")
    assert request.id == decode_request(BODY).id == "mine"
    assert b'"id":"mine"' in (await store.result(work)).body
    await running.close()


async def test_it_runs_no_more_at_once_than_it_may(store, log):
    pipeline = Pipeline()
    pipeline.gate.clear()
    works = [await add(store) for _ in range(6)]
    running = runner(store, log, pipeline, concurrency=2)
    await pipeline.reaches(running=2)
    pipeline.gate.set()
    for work in works:
        await until(store, work, WorkState.DONE)
    assert pipeline.most == 2
    await running.close()


async def test_what_may_be_tried_again_is_with_growing_pauses(store, log, clock):
    busy = Refusal(Problem.NODE_UNREACHABLE, "try again", retry_after_s=2)
    work, pipeline = await add(store), Pipeline(busy, busy, busy)
    running = runner(store, log, pipeline)
    for tries, pause_s in ((1, 2), (2, 4), (3, 8)):
        await pipeline.reaches(calls=tries)
        await until(store, work, WorkState.QUEUED)
        assert await store.take() is None
        clock.now += pause_s - 1
        assert await store.take() is None
        clock.now += 1
        running.wake()
    found = await until(store, work, WorkState.DONE)
    assert (found.attempts, found.postponed) == (1, 3)
    await running.close()


@pytest.mark.parametrize("kind", [Lost, Unanswered])
async def test_what_may_have_run_is_run_again_a_number_of_times(reopen, log, clock, kind):
    store = await reopen(attempts_max=3)
    perhaps = [kind(Problem.EXECUTION_FAILED, "broke off", retry_after_s=2) for _ in range(3)]
    work, pipeline = await add(store), Pipeline(*perhaps)
    running = runner(store, log, pipeline)
    for tries, pause_s in ((1, 2), (2, 4)):
        await pipeline.reaches(calls=tries)
        found = await until(store, work, WorkState.QUEUED)
        assert (found.attempts, found.postponed) == (tries, tries)
        clock.now += pause_s
        running.wake()
    found = await until(store, work, WorkState.FAILED)
    assert (await store.failure(found)).detail == "broke off"
    assert len(pipeline.calls) == 3
    await running.close()


async def test_what_may_have_run_and_left_something_behind_ends_there(store, log):
    broken = Refusal(Problem.EXECUTION_FAILED, "broke off", retry_after_s=2)
    work, pipeline = await add(store), Pipeline(broken)
    running = runner(store, log, pipeline)
    assert (await until(store, work, WorkState.FAILED)).attempts == 1
    await running.close()


async def test_what_may_not_be_tried_again_ends_there(store, log):
    refusal = Refusal(
        Problem.POLICY_REFUSED, "No.", policies=("gdpr-transfer",), citations=("GDPR Art. 44",)
    )
    work, pipeline = await add(store), Pipeline(refusal)
    running = runner(store, log, pipeline)
    found = await until(store, work, WorkState.FAILED)
    assert await store.failure(found) == Failure(
        problem=Problem.POLICY_REFUSED,
        detail="No.",
        policies=("gdpr-transfer",),
        citations=("GDPR Art. 44",),
    )
    await running.close()


async def test_work_of_a_device_that_was_revoked_is_not_run_and_recorded(store, log, tmp_path):
    work, pipeline = await add(store, PHONE), Pipeline()
    running = runner(store, log, pipeline, enrolled=lambda device: device != PHONE.id)
    found = await until(store, work, WorkState.FAILED)
    assert found.problem is Problem.TOKEN_INVALID
    assert not pipeline.calls
    await running.close()
    await log.close()
    (record,) = [decode(leaf) for leaf in read_entries(tmp_path / "log", 1)]
    assert (record.principal, record.problem) == (PHONE.id, Problem.TOKEN_INVALID)


class Outage:
    """A log that cannot be written, until it `ends`, and a runner that asks every few milliseconds."""

    def __init__(self, log, monkeypatch):
        self.tries = asyncio.Queue()
        self._log, self._append, self._ended = log, log.append, False
        monkeypatch.setattr(log, "append", self._try)
        monkeypatch.setattr("secure_gateway.work.runner.UNWRITTEN_DELAY_S", 0.005)
        monkeypatch.setattr("secure_gateway.work.runner.TICK_S", 0.005)

    def _try(self, *arguments):
        self.tries.put_nowait(None)
        if not self._ended:
            raise LogUnavailable("the disk is full")
        return self._append(*arguments)

    def end(self):
        self._ended = True

    async def lasts(self, tries=5):
        for _ in range(tries):
            await self.tries.get()


@pytest.fixture
def outage(log, monkeypatch):
    return Outage(log, monkeypatch)


class Unwritten:
    """Tells the stand-in that the record of what it came to is not written."""

    def __init__(self, refusal=None):
        self.refusal = refusal


async def test_what_could_not_be_recorded_waits_for_its_record_and_nothing_else_is_begun(
    store, log, outage, tmp_path
):
    work, pipeline = await add(store), Pipeline(Unwritten())
    running = runner(store, log, pipeline)
    await pipeline.reaches(calls=1)
    second = await add(store)
    await outage.lasts()
    assert len(pipeline.calls) == 1
    assert (await store.find(work.id, ADAMS.id)).state is WorkState.RUNNING
    assert (await store.find(second.id, ADAMS.id)).state is WorkState.QUEUED
    outage.end()
    for each in (work, second):
        assert (await until(store, each, WorkState.DONE)).attempts == 1
    assert len(pipeline.calls) == 2
    await running.close()
    await log.close()
    (record,) = [decode(leaf) for leaf in read_entries(tmp_path / "log", 1)]
    assert (record.id, record.outcome) == (work.id, Outcome.SERVED)


async def test_nothing_is_begun_while_the_log_is_known_to_fail(store, log, monkeypatch):
    monkeypatch.setattr("secure_gateway.work.runner.TICK_S", 0.005)
    asked, writable = asyncio.Queue(), False

    def answer(_):
        asked.put_nowait(None)
        return writable

    monkeypatch.setattr(Recorder, "writable", property(answer))
    work, pipeline = await add(store), Pipeline()
    running = runner(store, log, pipeline)
    for _ in range(5):
        await asked.get()
    assert not pipeline.calls
    assert (await store.find(work.id, ADAMS.id)).attempts == 0
    writable = True
    assert (await until(store, work, WorkState.DONE)).attempts == 1
    await running.close()


async def test_what_could_not_be_kept_is_kept_once_it_can(store, log, monkeypatch):
    monkeypatch.setattr("secure_gateway.work.runner.UNWRITTEN_DELAY_S", 0.005)
    finish, failures = store.finish, [WorkStoreError("the disk is full")] * 3

    async def at_last(*arguments, **more):
        if failures:
            raise failures.pop()
        return await finish(*arguments, **more)

    monkeypatch.setattr(store, "finish", at_last)
    work, pipeline = await add(store), Pipeline()
    running = runner(store, log, pipeline)
    assert (await until(store, work, WorkState.DONE)).attempts == 1
    assert len(pipeline.calls) == 1
    await running.close()


NOT_NOW = Refusal(Problem.NODE_UNREACHABLE, "try again", retry_after_s=2)


@pytest.mark.parametrize(
    ("came_to", "lasting", "attempts_max", "state", "attempts"),
    [
        (None, False, 2, WorkState.QUEUED, 1),
        (None, False, 1, WorkState.FAILED, 1),
        (None, True, 2, WorkState.FAILED, 1),
        (NOT_NOW, False, 1, WorkState.QUEUED, 0),
        (NOT_NOW, True, 1, WorkState.QUEUED, 0),
    ],
)
async def test_a_stop_of_what_waits_for_its_record_counts_what_ran(
    reopen, log, outage, monkeypatch, came_to, lasting, attempts_max, state, attempts
):
    monkeypatch.setattr("secure_gateway.work.runner.DRAIN_S", 0.005)
    store = await reopen(attempts_max=attempts_max)
    work, pipeline = await add(store), Pipeline(Unwritten(came_to))
    pipeline.lasting = lasting
    running = runner(store, log, pipeline)
    await outage.lasts()
    await running.close()
    found = await (await reopen(attempts_max=attempts_max)).find(work.id, ADAMS.id)
    assert (found.state, found.attempts) == (state, attempts)


async def test_what_a_stop_could_not_write_down_is_seen_at_the_next_start(
    reopen, log, outage, monkeypatch
):
    async def fail(*_, **__):
        raise WorkStoreError("the disk is full")

    monkeypatch.setattr("secure_gateway.work.runner.DRAIN_S", 0.005)
    store = await reopen()
    work, pipeline = await add(store), Pipeline(Unwritten())
    pipeline.lasting = True
    running = runner(store, log, pipeline)
    await outage.lasts()
    monkeypatch.setattr(store, "finish", fail)
    await running.close()
    found = await (await reopen()).find(work.id, ADAMS.id)
    assert (found.state, found.problem) == (WorkState.FAILED, Problem.EXECUTION_FAILED)


async def test_a_run_that_cannot_be_marked_is_not_begun(store, log, clock, monkeypatch):
    mark, failures = store.mark_lasting, [WorkStoreError("the disk is full")]

    async def at_last(work):
        if failures:
            raise failures.pop()
        await mark(work)

    monkeypatch.setattr(store, "mark_lasting", at_last)
    work, pipeline = await add(store), Pipeline()
    pipeline.lasting = True
    running = runner(store, log, pipeline)
    await pipeline.reaches(calls=1)
    assert (await until(store, work, WorkState.QUEUED)).attempts == 0
    clock.now += 5
    running.wake()
    await until(store, work, WorkState.DONE)
    await running.close()


async def test_work_of_another_key_fails_and_is_not_run(reopen, log):
    work = await add(await reopen())
    store = await reopen(Sealer(bytes(32), "work 1"))
    pipeline = Pipeline()
    running = runner(store, log, pipeline)
    found = await until(store, work, WorkState.FAILED)
    assert found.problem is Problem.INTERNAL
    assert not pipeline.calls
    await running.close()


async def test_a_defect_stops_neither_the_rest_nor_says_what_it_was_about(store, log, caplog):
    first, second = await add(store), await add(store)
    pipeline = Pipeline(ValueError("canary"))
    running = runner(store, log, pipeline, concurrency=1)
    await until(store, second, WorkState.DONE)
    assert (await store.find(first.id, ADAMS.id)).state is WorkState.RUNNING
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text
    await running.close()


async def test_closing_queues_again_what_does_not_end(reopen, log, monkeypatch):
    monkeypatch.setattr("secure_gateway.work.runner.DRAIN_S", 0.05)
    store, pipeline = await reopen(), Pipeline()
    pipeline.gate.clear()
    work = await add(store)
    running = runner(store, log, pipeline)
    await pipeline.reaches(running=1)
    await running.close()
    found = await (await reopen()).find(work.id, ADAMS.id)
    assert (found.state, found.attempts) == (WorkState.QUEUED, 0)


async def test_a_stop_while_work_is_taken_leaves_it_queued(reopen, log, monkeypatch):
    store, pipeline = await reopen(attempts_max=1), Pipeline()
    take, taken, go = store.take, asyncio.Event(), asyncio.Event()

    async def held():
        work = await take()
        taken.set()
        await go.wait()
        return work

    monkeypatch.setattr(store, "take", held)
    work = await add(store)
    running = runner(store, log, pipeline)
    await taken.wait()
    closing = asyncio.create_task(running.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    found = await (await reopen(attempts_max=1)).find(work.id, ADAMS.id)
    assert (found.state, found.attempts) == (WorkState.QUEUED, 0)
    assert not pipeline.calls
