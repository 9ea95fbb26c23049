"""The loop is kept awake while a quick disk writes, and only then.

Seen to fail: with a loop that looks on after the write, with one that looks for as long as it takes,
with one that a slow disk keeps awake, with two looks a turn, with one that keeps the processor, and
with one that goes on giving it to whoever computes.
"""

import asyncio
import os

import pytest

from audit.awake import ASLEEP_S, AWAKE_S, NOTHING_S, YIELDED_MAX, YIELDED_S, Awake


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def awake(clock):
    return Awake(asyncio.get_running_loop(), clock)


async def looks(awake, most=50):
    """Let the loop turn; return how many turns it was kept awake for."""
    for turn in range(most):
        if not awake._looking:
            return turn
        await asyncio.sleep(0)
    return most


async def test_it_looks_until_the_write_has_ended_and_no_longer(awake):
    awake.begin()
    assert await looks(awake) == 50
    awake.end()
    assert await looks(awake) <= 1


async def test_it_looks_once_a_turn_however_soon_writes_follow(awake, monkeypatch):
    looked, look = [], Awake._look
    monkeypatch.setattr(Awake, "_look", lambda self: (looked.append(self), look(self))[1])
    for _ in range(5):
        awake.begin()
        awake.end()
    awake.begin()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(looked) <= 11


async def test_each_look_lets_others_have_the_processor_first(awake, monkeypatch):
    """A thread of the kernel's that is to flush the disk may have no other one to run on."""
    yielded = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    awake.begin()
    assert await looks(awake) == 50
    assert len(yielded) in (49, 50)
    awake.end()
    await looks(awake)
    assert len(yielded) in (49, 50)


async def test_where_others_compute_on_the_processor_the_loop_sleeps_for_a_while(
    awake, clock, monkeypatch
):
    """It would hear of its write later than one that is woken up: a turn takes milliseconds."""

    def taken():
        clock.now_s += YIELDED_S

    with monkeypatch.context() as busy:
        busy.setattr(os, "sched_yield", taken)
        for _ in range(YIELDED_MAX):
            awake.begin()
            assert 1 <= await looks(awake) <= 3
            awake.end()
    clock.now_s += 0.99 * ASLEEP_S - YIELDED_S
    awake.begin()
    assert await looks(awake) == 0
    awake.end()
    clock.now_s += 0.02 * ASLEEP_S
    awake.begin()
    assert await looks(awake) == 50
    awake.end()


async def test_a_thread_that_has_the_processor_now_and_then_sends_nobody_to_sleep(
    awake, clock, monkeypatch
):
    takes = False

    def taken():
        clock.now_s += takes * YIELDED_S

    monkeypatch.setattr(os, "sched_yield", taken)
    for n in range(5 * YIELDED_MAX):
        takes = n % YIELDED_MAX > 0
        awake.begin()
        assert await looks(awake) >= 1
        awake.end()
        await looks(awake)


async def test_a_write_that_takes_long_is_slept_through(awake, clock):
    awake.begin()
    clock.now_s = AWAKE_S
    assert await looks(awake) <= 1
    awake.end()


async def test_a_slow_disk_is_slept_through_from_the_start_and_a_quick_one_no_more(awake, clock):
    for _ in range(40):
        awake.begin()
        clock.now_s += 4 * AWAKE_S
        awake.end()
        await looks(awake)
    awake.begin()
    assert await looks(awake) == 0
    awake.end()
    for _ in range(40):
        awake.begin()
        clock.now_s += AWAKE_S / 4
        awake.end()
    awake.begin()
    assert await looks(awake) == 50
    awake.end()


async def test_an_end_without_a_beginning_is_nothing(awake, clock):
    clock.now_s = 9.0
    awake.end()
    awake.begin()
    assert await looks(awake) == 50
    awake.end()


async def test_only_turns_with_nothing_to_do_count_as_idle(awake, clock, monkeypatch):
    turns = iter([NOTHING_S / 2, NOTHING_S, NOTHING_S / 4])
    monkeypatch.setattr(os, "sched_yield", lambda: setattr(clock, "now_s", clock.now_s + next(turns)))
    awake.begin()
    for _ in range(3):
        await asyncio.sleep(0)
    awake.end()
    await asyncio.sleep(0)
    assert awake.idle_s == pytest.approx(0.75 * NOTHING_S)
    # What passed until the next write is nobody's.
    clock.now_s += NOTHING_S / 2
    monkeypatch.undo()
    awake.begin()
    await looks(awake, 5)
    awake.end()
    assert awake.idle_s == pytest.approx(0.75 * NOTHING_S)
