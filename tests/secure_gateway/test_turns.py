"""Requests that come together are taken up a few in each turn of the event loop, in their order.

Seen to fail: with whoever came last called first, with a turn given to whoever hung up, and
with what was called not counted for its turn.
"""

import asyncio

from secure_gateway.turns import Turns


class Requests:
    """Requests that ask for their turn, and the turn of the loop in which each got it."""

    def __init__(self, per_turn):
        self.turns = Turns(per_turn)
        self.taken = []
        self.now = 0

    async def ask(self, name):
        if (turn := self.turns.take()) is not None:
            await turn
        self.taken.append((name, self.now))

    async def pass_turns(self, count):
        for _ in range(count):
            await asyncio.sleep(0)
            self.now += 1


async def test_a_few_are_taken_up_in_each_turn_and_nobody_is_passed():
    requests = Requests(3)
    asking = [asyncio.ensure_future(requests.ask(n)) for n in range(10)]
    await requests.pass_turns(2)
    asking += [asyncio.ensure_future(requests.ask(n)) for n in range(10, 12)]
    await requests.pass_turns(8)
    assert all(task.done() for task in asking)
    assert [name for name, _ in requests.taken] == list(range(12))
    turns = [turn for _, turn in requests.taken]
    assert max(turns.count(turn) for turn in turns) == 3
    assert len(set(turns)) == 4


async def test_a_lone_request_never_waits():
    requests = Requests(1)
    for n in range(5):
        assert requests.turns.take() is None, n
        await requests.pass_turns(2)


async def test_who_hung_up_takes_nobodys_turn():
    requests = Requests(1)
    asking = [asyncio.ensure_future(requests.ask(n)) for n in range(6)]
    await requests.pass_turns(1)
    for task in asking[1:5]:
        task.cancel()
    await requests.pass_turns(4)
    assert [name for name, _ in requests.taken] == [0, 5]


async def test_after_a_rush_a_turn_takes_as_many_as_before():
    requests = Requests(2)
    for _ in range(3):
        requests.taken.clear()
        asking = [asyncio.ensure_future(requests.ask(n)) for n in range(5)]
        await requests.pass_turns(6)
        assert [task.done() for task in asking] == [True] * 5
        turns = [turn for _, turn in requests.taken]
        assert [turns.count(turn) for turn in turns] == [2, 2, 2, 2, 1]
