"""While a batch is on its way to the disk, what can be done is done; nothing of it counts before.

Seen to fail: with an index that is not the record's, with preparing after the sync, with what a
preparation raises let through, with preparing for those who left, and with a failed sync passed over.
"""

import asyncio
import errno
import os
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import break_syncs, refuse_direct_writes, watch_syncs, without_the_kernel

from audit import Log, LogUnavailable
from audit.awake import Awake
from audit.group_commit import FEW
from audit.kernel_write import BYTES_MAX as KERNEL_BYTES_MAX
from audit.merkle import Frontier, leaf_hash
from audit.wal import WriteAheadLog

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(params=["in the kernel", "on the loop", "on a thread"])
async def log(request, tmp_path, monkeypatch):
    if request.param == "on the loop":
        without_the_kernel(monkeypatch)
    quick = 0.0 if request.param == "on a thread" else float("inf")
    for bound in ("INLINE_BELOW_S", "STALLED_S"):
        monkeypatch.setattr(f"audit.disk_pace.{bound}", quick)
    opened = await Log.open(tmp_path, origin="example.org/one", key=KEY)
    # The first write finds out how quick the disk is.
    await opened.append(b"leaf 0")
    yield opened
    await opened.close()


@pytest.fixture
def happened(monkeypatch):
    """What was prepared and when a sync of the write-ahead log ended, in order."""
    events = []
    watch_syncs(monkeypatch, lambda: events.append("synced"))
    return events


async def test_answers_are_prepared_with_their_own_index(log, happened):
    for together in (1, FEW, 1, FEW + 2, 2, 300):
        size = log.size
        happened.clear()
        appended = [log.append(b"leaf %d" % (size + n), happened.append) for n in range(together)]
        indices = await asyncio.gather(*appended)
        assert indices == list(range(size, size + together))
        prepared = [event for event in happened if event != "synced"]
        # After a lone record the first of many is written by itself.
        assert prepared == (indices if together <= FEW else indices[: len(prepared)])
        assert together <= FEW or len(prepared) <= 1
    frontier = Frontier()
    frontier.extend(leaf_hash(b"leaf %d" % n) for n in range(log.size))
    assert log.checkpoint.root == frontier.root()


@pytest.mark.parametrize("log", ["in the kernel", "on the loop"], indirect=True)
async def test_on_a_quick_disk_they_are_prepared_before_the_disk_is_waited_for(log, happened):
    await log.append(b"one", happened.append)
    await asyncio.gather(log.append(b"two", happened.append), log.append(b"three", happened.append))
    assert happened[:3] == [1, "synced", 2]
    assert happened.index("synced", 3) > happened.index(2)
    assert happened[-1] == "synced"
    assert happened.index(3) < len(happened) - 1


async def test_what_cannot_be_prepared_is_recorded_all_the_same(log, happened):
    def fails(index):
        happened.append(index)
        raise ValueError("no answer can be made of this")

    appended = [log.append(b"one", fails), log.append(b"two", happened.append)]
    assert await asyncio.gather(*appended) == [1, 2]
    assert await log.append(b"three", fails) == 3
    assert [event for event in happened if event != "synced"] == [1, 2, 3]


async def test_nothing_is_prepared_for_who_left(log, happened):
    appended = [log.append(b"leaf %d" % n, happened.append) for n in (1, 2, 3)]
    appended[1].cancel()
    await asyncio.gather(*appended, return_exceptions=True)
    assert [event for event in happened if event != "synced"] == [1, 3]
    assert log.size == 4


async def test_what_was_prepared_counts_for_nothing_if_the_sync_fails(log, monkeypatch):
    prepared = []
    with monkeypatch.context() as failing:
        break_syncs(failing)
        with pytest.raises(LogUnavailable, match="Input/output"):
            await log.append(b"lost", prepared.append)
    assert prepared == [1]
    assert await log.append(b"kept", prepared.append) == 1
    assert log.entries(0, 9) == [b"leaf 0", b"kept"]


@pytest.mark.parametrize("log", ["in the kernel"], indirect=True)
async def test_the_loop_stays_awake_while_the_kernel_writes(log, monkeypatch):
    if log._commit._kernel is None:
        pytest.skip("this system lets nobody have the kernel write by itself")
    seen = []
    for name in ("begin", "end"):
        monkeypatch.setattr(Awake, name, lambda _, name=name: seen.append(name))
    await log.append(b"one")
    assert seen == ["begin", "end"]
    # The first of many is written by itself.
    await asyncio.gather(*(log.append(b"leaf %d" % n) for n in range(FEW + 2)))
    assert seen == ["begin", "end"] * 3


async def test_leaves_that_are_too_long_for_the_kernel_are_written_too(log):
    leaves = [b"%d" % n + b"x" * 65_000 for n in range(KERNEL_BYTES_MAX // 65_000 + 9)]
    indices = await asyncio.gather(*map(log.append, leaves))
    assert indices == list(range(1, len(leaves) + 1))
    assert log._commit._kernel is None or await log.append(b"after") == len(leaves) + 1


@pytest.fixture
def stalled(monkeypatch):
    """A disk on which syncs stall, on a thread, until they are let go on."""
    go_on, sync = threading.Event(), os.fdatasync

    def slow(file):
        go_on.wait(30)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", slow)
    yield go_on
    go_on.set()


@pytest.mark.parametrize("log", ["on a thread"], indirect=True)
async def test_no_batch_is_written_beside_another(log, stalled, monkeypatch):
    begun, begin = [], WriteAheadLog.begin
    monkeypatch.setattr(
        WriteAheadLog, "begin", lambda wal, *args: (begun.append(args[0]), begin(wal, *args))[1]
    )
    first = log.append(b"first")
    while not begun:  # noqa: ASYNC110 no event tells
        await asyncio.sleep(0)
    second = log.append(b"second")
    # As where the loop calls for a batch that was asked for before this one began.
    log._commit._commit()
    await asyncio.to_thread(time.sleep, 0.01)
    assert begun == [[b"first"]]
    stalled.set()
    assert [await first, await second] == [1, 2]
    assert log.entries(1, 3) == [b"first", b"second"]


@pytest.mark.parametrize("log", ["on a thread"], indirect=True)
async def test_nobody_is_left_waiting_by_who_gives_up_closing(log, stalled):
    first = log.append(b"first")
    await asyncio.sleep(0)
    second = log.append(b"second")
    closing = asyncio.ensure_future(log._commit.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(LogUnavailable, match="closed"):
        await second
    stalled.set()
    assert await first == 1


@pytest.mark.parametrize("log", ["in the kernel"], indirect=True)
async def test_who_gives_up_closing_lets_go_once_of_a_kernel_that_cannot_write(log, monkeypatch):
    """Whoever opens something meanwhile gets the descriptor's number, and would have it closed."""
    kernel = log._commit._kernel
    if kernel is None:
        pytest.skip("this system lets nobody have the kernel write by itself")
    eventfd, close, closed = kernel._kernel._eventfd, os.close, []
    refuse_direct_writes(monkeypatch, errno.EINVAL)
    monkeypatch.setattr(os, "close", lambda number: (closed.append(number), close(number)))
    # A disk that does not answer before the log is closed.
    log._commit._loop.remove_reader(eventfd)
    appended = log.append(b"leaf 1")
    closing = asyncio.ensure_future(log._commit.close())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not closing.done()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert closed.count(eventfd) == 1
    assert await appended == 1


@pytest.mark.parametrize("log", ["in the kernel"], indirect=True)
async def test_a_slow_disk_is_the_kernels_again_once_it_takes_what_it_is_handed(log, monkeypatch):
    if log._commit._kernel is None:
        pytest.skip("this system lets nobody have the kernel sync by itself")
    sync, threads = os.fdatasync, []
    watch_syncs(monkeypatch, lambda: threads.append(threading.current_thread()))
    monkeypatch.setattr(os, "fdatasync", lambda file: (time.sleep(0.002), sync(file)))
    monkeypatch.setattr("audit.disk_pace.INLINE_BELOW_S", 0.001)
    monkeypatch.setattr("audit.disk_pace.INLINE_AGAIN_S", 0.0)
    log._commit._pace.failed()
    for n in range(4):
        await log.append(b"leaf %d" % n)
    assert threads[0] is not threading.main_thread()
    assert threads[-1] is threading.main_thread()
