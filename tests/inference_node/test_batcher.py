import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_node import DeadlineExceeded, ExecutionFailed, QueueFull
from inference_node.batcher import Batcher
from inference_node.gathering import TURNS_MAX, Gathering

POISON = -1.0


def double(feed, outputs):
    if (feed["x"] == POISON).any():
        raise ExecutionFailed("poisoned")
    return [feed["x"] * 2 for _ in outputs]


def batcher(run=double, *, rows=8, queue=64, executor=None):
    return Batcher(run, max_rows=rows, max_queue_size=queue, executor=executor)


def submit(to, value, rows=1, width=1, **options):
    x = np.full((rows, width), float(value), dtype=np.float32)
    return to.submit({"x": x}, ("y",), rows, **options)


requests = st.lists(
    st.tuples(
        st.integers(1, 5),  # rows
        st.sampled_from([1, 2]),  # width: two signatures that must not mix
        st.booleans(),  # cancelled
        st.booleans(),  # poisoned
        st.integers(0, 2),  # turns of the event loop before it comes
    ),
    max_size=25,
)


@given(requests, st.booleans(), st.integers(1, 6))
def test_each_request_gets_its_own_rows_once_in_any_interleaving(plan, threaded, max_rows):
    async def run():
        with ThreadPoolExecutor(1) as pool:
            to = batcher(rows=max_rows, executor=pool if threaded else None)
            futures, gone = [], []
            for number, (rows, width, cancelled, poisoned, turns) in enumerate(plan):
                for _ in range(turns):
                    await asyncio.sleep(0)
                future = submit(to, POISON if poisoned else number + 1, rows, width)
                # One that ran at once cannot be cancelled any more.
                gone.append(cancelled and future.cancel())
                futures.append(future)
            await to.drain()
            return await asyncio.gather(*futures, return_exceptions=True), gone

    outcomes, gone = asyncio.run(run())
    for number, (outcome, request) in enumerate(zip(outcomes, plan, strict=True)):
        rows, width, _, poisoned, _ = request
        if gone[number]:
            assert isinstance(outcome, asyncio.CancelledError)
        elif poisoned:
            assert isinstance(outcome, ExecutionFailed)
        else:
            (result,) = outcome
            assert result.shape == (rows, width)
            assert (result == 2.0 * (number + 1)).all()


async def test_what_waits_while_a_batch_runs_becomes_the_next_batch():
    sizes = []
    begun, go_on = threading.Event(), threading.Event()

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        begun.set()
        go_on.wait(10)
        return double(feed, outputs)

    with ThreadPoolExecutor(1) as pool:
        to = batcher(run, executor=pool)
        futures = [submit(to, 1)]
        await asyncio.to_thread(begun.wait, 10)
        futures += [submit(to, n) for n in range(2, 7)]
        go_on.set()
        await asyncio.gather(*futures)
    assert sizes == [1, 5]


async def test_requests_of_one_turn_run_together():
    sizes = []

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        return double(feed, outputs)

    to = batcher(run)
    await asyncio.gather(*(submit(to, n) for n in range(1, 12)))
    assert sizes == [8, 3]


async def test_requests_that_are_read_when_a_batch_ends_run_in_the_next_with_those_that_waited():
    sizes, submitted = [], []
    begun, go_on = threading.Event(), threading.Event()

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        begun.set()
        go_on.wait(10)
        return double(feed, outputs)

    with ThreadPoolExecutor(1) as pool:
        to = batcher(run, executor=pool)
        first = [submit(to, 1), submit(to, 2)]
        await asyncio.to_thread(begun.wait, 10)
        submitted.append(submit(to, 3))
        # In the turn in which the batch ends, another connection turns out to have been read.
        first[0].add_done_callback(lambda _: submitted.append(submit(to, 4)))
        go_on.set()
        await asyncio.gather(*first)
        await asyncio.gather(*submitted)
    assert sizes == [2, 2]


async def submit_after(to, turns, value):
    for _ in range(turns):
        await asyncio.sleep(0)
    return await submit(to, value)


@pytest.mark.parametrize("threaded", [False, True])
async def test_requests_that_were_being_read_when_the_batch_began_to_gather_run_with_it(threaded):
    sizes = []

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        return double(feed, outputs)

    with ThreadPoolExecutor(1) as pool:
        to = batcher(run, rows=64, executor=pool if threaded else None)
        await asyncio.gather(submit(to, 1), submit(to, 2))
        # Each of these comes a turn of the event loop after the one before, as connections are read.
        coming = [submit_after(to, turns, turns) for turns in range(TURNS_MAX)]
        answers = await asyncio.gather(*coming)
    assert sizes == [2, TURNS_MAX]
    assert [float(answer[0, 0]) for (answer,) in answers] == [2.0 * n for n in range(TURNS_MAX)]


async def test_a_lone_request_runs_in_the_next_turn_and_a_stream_of_others_holds_up_none_for_long():
    began, turn = [], 0

    def run(feed, outputs):
        began.extend((float(value), turn) for value in feed["x"][:, 0])
        return double(feed, outputs)

    to = batcher(run, rows=64)
    lone = submit(to, 1)
    await asyncio.sleep(0)
    assert lone.done()

    futures = [submit(to, 2), submit(to, 3)]
    for turn in range(1, 50):
        await asyncio.sleep(0)
        futures.append(submit(to, 100 + turn))
    await asyncio.gather(*futures)
    waits = [ran - (value - 100) for value, ran in began if value > 100]
    assert max(waits) <= TURNS_MAX + 1
    assert len(waits) == 49


async def test_where_requests_come_one_by_one_each_runs_at_once():
    sizes = []

    def run(feed, outputs):
        sizes.append(len(feed["x"]))
        return double(feed, outputs)

    to = batcher(run, rows=64)
    first = submit(to, 1)
    assert not first.done()
    await first
    second = submit(to, 2)
    assert second.done()
    # Who comes in the same turn runs in the next, and so does who comes after those two.
    third = submit(to, 3)
    assert not third.done()
    await to.drain()
    answers = [float(future.result()[0][0, 0]) for future in (first, second, third)]
    assert answers == [2.0, 4.0, 6.0]
    fourth = submit(to, 4)
    assert not fourth.done()
    await fourth
    await asyncio.sleep(0)
    assert submit(to, 5).done()
    assert sizes == [1, 1, 1, 1, 1]


async def test_a_lone_request_that_fails_or_is_too_late_is_told_so_at_once():
    to = batcher()
    await submit(to, 1)
    with pytest.raises(ExecutionFailed):
        await submit(to, POISON)
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        submit(to, 2, deadline=time.monotonic() - 1)
    assert [float(result[0, 0]) for result in await submit(to, 3)] == [6.0]


@given(st.lists(st.integers(1, 70), max_size=60), st.integers(1, 64))
def test_gathering_ends_without_more_or_when_full_and_a_lone_caller_waits_for_nobody(counts, most):
    gathering = Gathering()
    company, seen, turns = False, 0, 0
    for waiting in counts:
        if gathering.goes_on(waiting, most):
            assert company
            assert seen < waiting < most
            seen, turns = waiting, turns + 1
            assert turns <= TURNS_MAX
        else:
            company, seen, turns = waiting > 1, 0, 0


async def test_a_full_queue_refuses_at_once():
    to = batcher(queue=2)
    accepted = [submit(to, 1), submit(to, 2)]
    with pytest.raises(QueueFull):
        submit(to, 3)
    await asyncio.gather(*accepted)


async def test_a_request_that_is_too_late_is_refused_and_not_run():
    seen = []

    def run(feed, outputs):
        seen.extend(feed["x"].ravel().tolist())
        return double(feed, outputs)

    to = batcher(run)
    with pytest.raises(DeadlineExceeded):
        submit(to, 1, deadline=time.monotonic() - 1)
    await submit(to, 2, deadline=time.monotonic() + 60)
    assert seen == [2.0]


async def test_a_model_that_mixes_rows_gives_no_one_anothers_answer():
    to = batcher(lambda feed, _: [feed["x"].sum(axis=0, keepdims=True)])
    outcomes = await asyncio.gather(submit(to, 1), submit(to, 2))
    assert [float(result[0][0, 0]) for result in outcomes] == [1.0, 2.0]


async def test_what_is_larger_than_was_timed_does_not_hold_up_the_event_loop(monkeypatch):
    """It runs in a thread, what comes meanwhile waits its turn, and the loop does not spin."""
    here, go_on = threading.get_ident(), threading.Event()
    runs, flushes = [], []

    def run(feed, outputs):
        runs.append((len(feed["x"]), threading.get_ident() == here))
        assert go_on.wait(30) or len(feed["x"]) < 9
        return double(feed, outputs)

    flush = Batcher._flush
    monkeypatch.setattr(Batcher, "_flush", lambda to: flushes.append(to) or flush(to))
    with ThreadPoolExecutor(1) as beyond:
        to = Batcher(run, max_rows=8, max_queue_size=64, executor=None, beyond=beyond)
        large = submit(to, 1, rows=9)
        impatient = submit(to, 2, deadline=time.monotonic() + 0.05)
        behind = submit(to, 3, rows=8)
        with pytest.raises(DeadlineExceeded):
            await impatient
        for _ in range(100):
            await asyncio.sleep(0)
        assert not large.done()
        assert not behind.done()
        assert len(flushes) < 5
        late = submit(to, 4, deadline=time.monotonic() + 0.05)
        with pytest.raises(DeadlineExceeded):
            await late
        go_on.set()
        assert (await behind)[0][0, 0] == 6
        assert (await large)[0].tolist() == [[2.0]] * 9
        assert runs == [(9, False), (8, True)]
        go_on.clear()
        alone = submit(to, 5, rows=9)
        for _ in range(TURNS_MAX + 2):
            await asyncio.sleep(0)
        after = submit(to, 6)
        assert not after.done()
        go_on.set()
        assert (await alone)[0][0, 0] == 10
        assert (await after)[0][0, 0] == 12
        await to.drain()
