"""The store of queued work and what runs it: order, limits, attempts, and what is left of what ended.

Seen to fail: with `secure_delete=OFF` or without the checkpoint in `tidy` what was deleted is still in
the files; with the record made after `hand_over` a log that cannot be written loses the result.
"""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event

from audit import Log, LogUnavailable
from audit.records import Action, Outcome, Problem, RequestRecord, decode
from audit.verify import read_entries
from inference_node import InferResponse, decode_request
from policies import Engine, Principal, Role, build_bundle
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.consent.reconsider import Reconsideration
from secure_gateway.errors import Lost, Refusal, Unanswered
from secure_gateway.exchange import Answer, Exchange, Unrecorded
from secure_gateway.record import Recorder
from secure_gateway.sealing import SealBroken, Sealer
from secure_gateway.work.content import Failure, Result, Submission
from secure_gateway.work.errors import WorkFull, WorkStoreError
from secure_gateway.work.routes import WorkApi
from secure_gateway.work.runner import WorkRunner
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import WorkState

SEALER = Sealer(bytes(range(32)), "work 1")
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0.5]}],"id":"mine"}'
ADAMS = Principal(id="dr.adams", roles=frozenset({Role.CLINICIAN}))
BAKER = Principal(id="dr.baker", roles=frozenset({Role.CLINICIAN}))
PHONE = Principal(id="device:phone-1", roles=frozenset({Role.DEVICE}))


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "gateway-1.sqlite"


@pytest.fixture
async def reopen(path, clock):
    stores = []

    async def opened(sealer=SEALER, **settings):
        for store in stores:
            await store.close()
        stores[:] = [await WorkStore.open(path, sealer, WorkSettings(**settings), clock=clock)]
        return stores[0]

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
async def store(reopen):
    return await reopen()


def submission(principal=ADAMS, body=BODY):
    return Submission(
        principal=principal,
        claims=NO_CLAIMS,
        model="sepsis",
        version=None,
        body=body,
        header_length=None,
    )


async def add(store, principal=ADAMS, *, body=BODY, lifetime_s=3600):
    async with store.room(principal.id, len(body)):
        return await store.add(uuid4(), submission(principal, body), lifetime_s)


def result(body=b"{}"):
    record = RequestRecord(
        time=datetime.now(UTC),
        id=UUID(int=1),
        action=Action.INFER,
        outcome=Outcome.SERVED,
        status=200,
        subject="ab" * 32,
    )
    return Result(headers=((b"content-type", b"application/json"),), body=body, record=record)


async def test_the_oldest_is_taken_first_and_each_once(store):
    added = [await add(store) for _ in range(4)]
    taken = [await store.take() for _ in range(5)]
    assert [work and work.id for work in taken] == [*(work.id for work in added), None]
    assert [work.attempts for work in taken[:4]] == [1] * 4


async def test_many_who_take_at_once_never_take_the_same(store):
    added = {(await add(store)).id for _ in range(20)}
    taken = await asyncio.gather(*(store.take() for _ in range(30)))
    assert sorted(work.id for work in taken if work) == sorted(added)


async def test_what_was_submitted_comes_back_as_it_was(store):
    body = bytes(range(256)) * 4096
    work = await add(store, body=body)
    assert await store.submission(work) == submission(body=body)
    taken = await store.take()
    assert taken.id == work.id
    kept = result(body)
    assert await store.finish(taken, kept)
    assert await store.result(work) == kept
    with pytest.raises(SealBroken):
        await store.submission(work)


async def test_postponed_work_waits_for_its_time_and_loses_no_attempt(store, clock):
    await add(store)
    work = await store.take()
    await store.postpone(work, 10)
    clock.now += 9
    assert await store.take() is None
    clock.now += 1
    again = await store.take()
    assert (again.id, again.attempts, again.postponed) == (work.id, 1, 1)


async def test_expired_work_is_not_run_not_kept_and_then_forgotten(store, clock):
    queued, running, done = [await add(store, lifetime_s=10) for _ in range(3)]
    running, done = await store.take(), await store.take()
    assert await store.finish(done, result())
    clock.now += 10
    # Before anybody has tidied up.
    for work in (queued, running, done):
        assert (await store.find(work.id, ADAMS.id)).state is WorkState.EXPIRED
    assert await store.take() is None
    await store.tidy()
    assert not await store.finish(running, result())
    assert not await store.hand_over(done)
    with pytest.raises(SealBroken):
        await store.result(done)
    clock.now += 3600
    await store.tidy()
    assert await store.find(queued.id, ADAMS.id) is None


@pytest.mark.parametrize("end", ["cancel", "hand_over", "refuse"])
async def test_what_has_ended_is_forgotten_after_a_while_however_long_it_could_have_waited(
    reopen, clock, end
):
    store = await reopen(remember_s=600)
    await add(store, lifetime_s=86400)
    work = await store.take()
    await store.finish(work, result())
    clock.now += 60
    assert await getattr(store, end)(work)
    clock.now += 599
    await store.tidy()
    assert (await store.find(work.id, ADAMS.id)).state in ("cancelled", "fetched", "refused")
    clock.now += 1
    await store.tidy()
    assert await store.find(work.id, ADAMS.id) is None


async def test_a_result_or_a_failure_that_nobody_fetched_is_kept_until_it_expires(reopen, clock):
    store = await reopen(remember_s=0)
    works = [await add(store, lifetime_s=86400) for _ in range(2)]
    result_kept = result()
    await store.finish(await store.take(), result_kept)
    await store.finish(await store.take(), Failure(problem=Problem.INTERNAL, detail="no"))
    clock.now += 86399
    await store.tidy()
    done, failed = [await store.find(work.id, ADAMS.id) for work in works]
    assert (await store.failure(failed)).detail == "no"
    assert await store.result(done) == result_kept
    assert await store.hand_over(done)


async def test_nothing_looks_at_all_rows(store, path):
    """Rows of what has ended may be a million: what is asked of them goes by an index."""
    asked = []

    def note(_connection, _cursor, statement, parameters, *_):
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((statement, parameters))

    event.listen(SqlEngine, "before_cursor_execute", note)
    try:
        for _ in range(3):
            await add(store)
        for end in (store.hand_over, store.cancel):
            work = await store.take()
            await store.finish(work, result())
            await end(work)
        await store.postpone(await store.take(), 0)
        await store.in_review()
        await store.tidy()
        await store._recover()
    finally:
        event.remove(SqlEngine, "before_cursor_execute", note)
    assert any("sum(work.size_bytes)" in statement for statement, _ in asked)
    with closing(sqlite3.connect(path)) as database:
        plans = {
            statement: [row[3] for row in database.execute(f"explain query plan {statement}", values)]
            for statement, values in asked
        }
    scans = {s: plan for s, plan in plans.items() if any(step.startswith("SCAN") for step in plan)}
    assert not scans


async def test_work_is_found_only_by_whose_it_is(store):
    work = await add(store)
    assert (await store.find(work.id, ADAMS.id)).id == work.id
    assert await store.find(work.id, BAKER.id) is None
    assert await store.find(uuid4(), ADAMS.id) is None


async def test_a_result_is_handed_over_once_and_never_after_a_cancel(store):
    first, second = await add(store), await add(store)
    for work in (await store.take(), await store.take()):
        assert await store.finish(work, result())
    assert await store.hand_over(first)
    assert not await store.hand_over(first)
    assert not await store.cancel(first)
    assert await store.cancel(second)
    assert not await store.hand_over(second)


async def test_a_run_that_ends_after_a_cancel_leaves_nothing(store):
    await add(store)
    work = await store.take()
    assert await store.cancel(work)
    assert not await store.finish(work, result())
    await store.postpone(work, 0)
    assert (await store.find(work.id, ADAMS.id)).state is WorkState.CANCELLED
    assert await store.take() is None


async def test_work_that_was_running_is_run_again_up_to_a_number_of_times(reopen):
    store = await reopen(attempts_max=3)
    work = await add(store)
    for attempt in (1, 2, 3):
        assert (await store.take()).attempts == attempt
        store = await reopen(attempts_max=3)
    found = await store.find(work.id, ADAMS.id)
    assert (found.state, found.problem) == (WorkState.FAILED, Problem.EXECUTION_FAILED)
    assert "3 times" in (await store.failure(found)).detail


async def test_what_may_have_left_something_behind_is_not_run_again_after_a_kill(reopen):
    store = await reopen(attempts_max=3)
    work = await add(store)
    taken = await store.take()
    await store.mark_lasting(taken)
    store = await reopen(attempts_max=3)
    found = await store.find(work.id, ADAMS.id)
    assert (found.state, found.attempts) == (WorkState.FAILED, 1)
    assert await store.failure(found)
    # A run that had not begun after all leaves the next one as it was.
    work = await add(store)
    taken = await store.take()
    await store.mark_lasting(taken)
    await store.postpone(taken, 0)
    await store.take()
    assert (await (await reopen(attempts_max=3)).take()).id == work.id


async def test_a_database_of_the_version_before_is_taken_over(reopen, path):
    work = await add(await reopen())
    with closing(sqlite3.connect(path)) as database:
        database.execute("alter table work drop column lasting")
        database.execute("pragma user_version = 1")
        database.commit()
    store = await reopen()
    taken = await store.take()
    assert taken.id == work.id
    await store.mark_lasting(taken)
    assert (await (await reopen()).find(work.id, ADAMS.id)).state is WorkState.FAILED


async def test_limits_count_what_is_being_decided_too(reopen):
    store = await reopen(limit=3, limit_for_principal=2, limit_bytes=10_000)
    async with store.room(ADAMS.id, 10), store.room(ADAMS.id, 10):
        with pytest.raises(WorkFull, match="caller's"):
            async with store.room(ADAMS.id, 10):
                pass
        async with store.room(BAKER.id, 10):
            with pytest.raises(WorkFull, match="3 pieces"):
                async with store.room("dr.clark", 10):
                    pass
    with pytest.raises(WorkFull, match="bytes"):
        async with store.room(ADAMS.id, 10_001):
            pass
    async with store.room(ADAMS.id, 9_000):
        with pytest.raises(WorkFull, match="bytes"):
            async with store.room(BAKER.id, 2_000):
                pass


async def test_results_stay_within_the_limit_of_bytes(reopen):
    store = await reopen(limit_bytes=4096)
    await add(store)
    work = await store.take()
    with pytest.raises(WorkFull):
        await store.finish(work, result(bytes(5000)))
    assert await store.finish(work, Failure(problem=Problem.OVERLOADED, detail="too large"))


def sealed_rows(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select work_id, content from sealed").fetchall()


async def test_sealed_contents_open_only_where_they_belong(store, path):
    mine, other = await add(store), await add(store, BAKER)
    rows = dict(sealed_rows(path))
    with closing(sqlite3.connect(path)) as database:
        for target, source in ((mine, other), (other, mine)):
            database.execute(
                "update sealed set content = ? where work_id = ?",
                (rows[str(source.id)], str(target.id)),
            )
        database.commit()
    for work in (mine, other):
        with pytest.raises(SealBroken):
            await store.submission(work)


@pytest.mark.parametrize("size", [200, 100_000])
async def test_what_was_deleted_is_overwritten(store, path, size):
    # Sealed bytes are random, so any part of them is found only where they still are.
    for _ in range(3):
        await add(store, body=bytes(size))
    parts = [content[60:124] for _, content in sealed_rows(path)]

    def left():
        files = [file.read_bytes() for file in path.parent.iterdir()]
        return [sum(part in content for content in files) for part in parts]

    assert all(left())
    first = await store.take()
    await store.cancel(first)
    second = await store.take()
    await store.finish(second, result())
    await store.tidy()
    assert [bool(count) for count in left()] == [False, False, True]


async def test_files_that_cannot_be_used_are_refused_by_name(path, clock):
    settings = WorkSettings()
    path.parent.mkdir()
    path.write_bytes(b"this is no database, " * 500)
    with pytest.raises(WorkStoreError, match=r"gateway-1\.sqlite"):
        await WorkStore.open(path, SEALER, settings, clock=clock)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma user_version = 99")
    with pytest.raises(WorkStoreError, match="another version"):
        await WorkStore.open(path, SEALER, settings, clock=clock)
    blocked = path / "below" / "a-file.sqlite"
    with pytest.raises(WorkStoreError, match="cannot be made"):
        await WorkStore.open(blocked, SEALER, settings, clock=clock)


# What runs it.


@pytest.fixture
async def log(tmp_path):
    opened = await Log.open(
        tmp_path / "log", origin="clinic/gateway-1", key=Ed25519PrivateKey.generate()
    )
    yield opened
    await opened.close()


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


class Authenticator:
    def authenticate(self, authorization):
        return ADAMS


async def asked(api, method, path):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await api(scope, receive, send)
    return sent[0]["status"]


async def test_a_result_that_cannot_be_recorded_is_neither_given_nor_lost(store, log):
    await add(store)
    work = await store.take()
    await store.finish(work, result())
    pipeline = Pipeline()
    api = WorkApi(
        store,
        WorkRunner(store, pipeline, Recorder(log), concurrency=1, enrolled=lambda _: True),
        WorkSettings(),
        engine=Engine(build_bundle(("base",), name="clinic", version=1, models={})),
        authenticator=Authenticator(),
        pipeline=pipeline,
        recorder=Recorder(log),
        reconsideration=Reconsideration(None, None),
        body_limit_bytes=1024,
    )
    await log.close()
    assert await asked(api, "GET", f"/v1/work/{work.id}/result") == 503
    assert await asked(api, "DELETE", f"/v1/work/{work.id}") == 503
    assert (await store.find(work.id, ADAMS.id)).state is WorkState.DONE
    assert await store.result(work)
