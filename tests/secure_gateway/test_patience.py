"""One timer for all that the gRPC side awaits.

Seen to fail: with the timer left where it is when something is due earlier, with it not moved on, and
with every cancellation of what is overdue taken for its own.
"""

import asyncio

import pytest

from secure_gateway.rpc.patience import Patience

NEVER_S = 3600


@pytest.fixture(params=[0, 2], ids=["alone", "behind others"])
async def patience(request):
    patience = Patience()
    others = [asyncio.create_task(patience.wait(never(), NEVER_S)) for _ in range(request.param)]
    await asyncio.sleep(0)
    yield patience
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def never():
    await asyncio.Event().wait()


async def test_what_comes_in_time_is_returned(patience):
    assert await patience.wait(asyncio.sleep(0, "here"), NEVER_S) == "here"


async def test_what_is_overdue_is_cancelled_and_others_are_not(patience):
    cancelled = asyncio.Event()

    async def slow():
        try:
            await never()
        finally:
            cancelled.set()

    slower = asyncio.create_task(patience.wait(never(), 0.05))
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await patience.wait(slow(), 0.01)
        assert cancelled.is_set()
        assert not asyncio.current_task().cancelling()
        with pytest.raises(TimeoutError):
            await slower


async def test_a_task_that_somebody_else_cancels_is_cancelled(patience):
    task = asyncio.create_task(patience.wait(never(), NEVER_S))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_also_if_it_is_overdue_at_that_moment(patience):
    async def stubborn():
        try:
            await never()
        except asyncio.CancelledError:
            # It is overdue, and whoever awaits it leaves before it has ended.
            task.cancel()
            raise

    task = asyncio.create_task(patience.wait(stubborn(), 0.01))
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
