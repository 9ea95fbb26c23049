"""The store of queued work: order, limits, attempts, and what is left of what ended.

Seen to fail: with `secure_delete=OFF` or without the checkpoint in `tidy` what was deleted is still in
the files, and so it was where another program was reading the file at that moment, or the process was
killed before; without `whole` a step that its caller gave up left the file locked.
"""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from uuid import uuid4

import pytest
from sqlalchemy import Engine as SqlEngine
from sqlalchemy import event
from support.stored_work import (
    ADAMS,
    BAKER,
    SEALER,
    add,
    result,
    sealed_rows,
    submission,
)

from audit.records import Problem
from secure_gateway.sealing import SealBroken
from secure_gateway.work.content import Failure
from secure_gateway.work.errors import WorkFull, WorkStoreError
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.store import WorkStore
from secure_gateway.work.tables import WorkState


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


def stored(path, part):
    return any(part in file.read_bytes() for file in path.parent.iterdir())


async def test_what_was_deleted_while_another_program_reads_is_overwritten_once_it_ends(store, path):
    work = await add(store)
    ((_, content),) = sealed_rows(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from work").fetchone()
        await store.cancel(work)
        await store.tidy()
        assert stored(path, content[60:124])
        # It is no reason to wait for whoever reads, with all callers behind.
        assert (await add(store)).id != work.id
        reader.execute("rollback")
    await store.tidy()
    assert not stored(path, content[60:124])


async def test_what_was_deleted_before_a_kill_is_overwritten_after_it(store, path, tmp_path, clock):
    work = await add(store)
    ((_, content),) = sealed_rows(path)
    await store.cancel(work)
    # As a kill leaves it, before anybody has tidied up.
    killed = tmp_path / "killed" / path.name
    shutil.copytree(path.parent, killed.parent)
    assert stored(killed, content[60:124])
    again = await WorkStore.open(killed, SEALER, WorkSettings(), clock=clock)
    assert not stored(killed, content[60:124])
    await again.close()


async def test_a_step_that_is_given_up_in_the_middle_leaves_the_file_as_others_need_it(store, path):
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        for number in range(80):
            await add(store)
            taking = asyncio.create_task(store.take())
            await asyncio.sleep(number / 40_000)
            taking.cancel()
            await asyncio.wait({taking})
            other.execute("begin immediate")
            other.execute("rollback")


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
