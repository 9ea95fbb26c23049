import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.syncs import break_syncs, watch_syncs, without_the_kernel

from audit import Log, LogBusy, LogCorrupt, LogUnavailable, NoteVerifier, open_checkpoint
from audit.group_commit import INLINE_RECORDS_MAX
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.records import encode
from audit.tiles import tile_path
from audit.verify import read_entries, verify_log
from bedside.keys import KeyFolder

ORIGIN = "clinic/gateway-1"
KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())


async def open_log(folder: Path) -> Log:
    return await Log.open(folder, origin=ORIGIN, key=KEY)


async def fill(log: Log, count: int, start: int = 0) -> None:
    await asyncio.gather(*(log.append(b"leaf %d" % n) for n in range(start, start + count)))


@pytest.mark.parametrize("sizes", [(1,), (255, 1, 1), (256,), (300, 700), (65536, 2)])
async def test_a_log_opened_again_goes_on_where_it_was(tmp_path, sizes):
    written = 0
    roots = {}
    for size in sizes:
        log = await open_log(tmp_path)
        assert log.size == written
        await fill(log, size, written)
        written += size
        roots[written] = log.checkpoint.root
        await log.close()
    log = await open_log(tmp_path)
    assert log.entries(0, written) == [b"leaf %d" % n for n in range(written)]
    for size, root in roots.items():
        proof = log.consistency_proof(size, written)
        verify_consistency(size, written, proof, root, log.checkpoint.root)
    for index in {0, written // 2, written - 1}:
        proof = log.inclusion_proof(index, written)
        verify_inclusion(leaf_hash(b"leaf %d" % index), index, written, proof, log.checkpoint.root)
    await log.close()


async def test_an_answer_means_that_the_record_is_on_disk(tmp_path):
    log = await open_log(tmp_path)
    index = await log.append(b"the record")
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "wal").iterdir())
    assert index == 0
    assert b"the record" in on_disk
    assert open_checkpoint(log.checkpoint.note, [VERIFIER]).size == 1
    await log.close()


async def test_records_that_arrive_together_share_one_sync(tmp_path, monkeypatch):
    log = await open_log(tmp_path)
    syncs = []
    watch_syncs(monkeypatch, lambda: syncs.append(log.size))
    await fill(log, 500)
    assert 1 <= len(syncs) <= 3
    await log.close()


async def test_a_second_writer_is_refused(tmp_path):
    log = await open_log(tmp_path)
    with pytest.raises(LogBusy):
        await open_log(tmp_path)
    await log.close()
    await (await open_log(tmp_path)).close()


@pytest.mark.parametrize("by", ["the kernel", "the loop"])
async def test_nothing_is_answered_while_the_disk_refuses_and_all_is_well_after(
    tmp_path, monkeypatch, by
):
    if by == "the loop":
        without_the_kernel(monkeypatch)
    log = await open_log(tmp_path)
    await fill(log, 3)
    root = log.checkpoint.root

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        break_syncs(broken, errno.ENOSPC)
        broken.setattr(os, "pwrite", full)
        with pytest.raises(LogUnavailable, match="No space left"):
            await log.append(b"lost?")
        assert not log.writable
    assert log.checkpoint.root == root
    assert await log.append(b"after") == 3
    assert log.writable
    await log.close()
    log = await open_log(tmp_path)
    assert log.entries(0, 9) == [b"leaf 0", b"leaf 1", b"leaf 2", b"after"]
    await log.close()


@pytest.mark.parametrize("by", ["the kernel", "the loop"])
async def test_records_on_a_quick_disk_need_no_thread_and_fail_like_all_others(
    tmp_path, monkeypatch, by
):
    if by == "the loop":
        without_the_kernel(monkeypatch)
    log = await open_log(tmp_path)
    threads = []
    watch_syncs(
        monkeypatch,
        lambda: threads.append(threading.current_thread() is threading.main_thread()),
    )
    for bound in ("INLINE_BELOW_S", "STALLED_S"):
        monkeypatch.setattr(f"audit.disk_pace.{bound}", float("inf"))
    for n in range(2):
        assert await log.append(b"leaf %d" % n) == n
    await fill(log, 10, 2)
    assert 3 <= len(threads) <= 4
    assert all(threads)
    # The first of many may be written by itself.
    await fill(log, INLINE_RECORDS_MAX + 2, 12)
    assert threads[-1] is False

    with monkeypatch.context() as failing:
        break_syncs(failing)
        with pytest.raises(LogUnavailable, match="Input/output"):
            await log.append(b"lost")
    # After a failure the disk is waited for on a thread, even if it turns out to be quick.
    written = INLINE_RECORDS_MAX + 14
    assert await log.append(b"next") == written
    assert threads[-1] is False
    assert open_checkpoint(log.checkpoint.note, [VERIFIER]).size == written + 1
    await log.close()
    assert open_checkpoint((tmp_path / "checkpoint").read_bytes(), [VERIFIER]).size == written + 1


async def test_where_records_come_one_by_one_none_waits_for_a_turn_of_the_loop(tmp_path, monkeypatch):
    without_the_kernel(monkeypatch)
    for bound in ("INLINE_BELOW_S", "STALLED_S"):
        monkeypatch.setattr(f"audit.disk_pace.{bound}", float("inf"))
    log = await open_log(tmp_path)
    first = log.append(b"the first may have company")
    assert not first.done()
    assert await first == 0
    lone = log.append(b"one more")
    assert lone.done()
    assert lone.result() == 1
    # Who comes in the same turn is committed in the next, together.
    assert await log.append(b"with company") == 2
    # From company it takes a lone record to know better.
    third = log.append(b"the third")
    assert not third.done()
    assert await third == 3
    await asyncio.sleep(0)
    assert log.append(b"the fourth").done()
    await log.close()
    log = await open_log(tmp_path)
    assert log.entries(3, 5) == [b"the third", b"the fourth"]
    await log.close()


async def test_the_event_loop_is_not_held_up_by_a_disk_that_stalls(tmp_path, monkeypatch):
    log = await open_log(tmp_path)
    stalled, go_on = threading.Event(), threading.Event()
    sync = os.fdatasync

    def slow(file: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            stalled.set()
            go_on.wait(30)
        sync(file)

    monkeypatch.setattr("audit.disk_pace.STALLED_S", 0.0)  # any write is one that stalled
    await log.append(b"a write that takes long")
    monkeypatch.setattr(os, "fdatasync", slow)
    second = log.append(b"another")
    assert await asyncio.to_thread(stalled.wait, 30)
    # The loop goes on, and what comes meanwhile waits for the next commit.
    third = log.append(b"a third")
    await asyncio.sleep(0)
    assert not second.done()
    assert not third.done()
    go_on.set()
    assert [await second, await third] == [1, 2]
    await log.close()


async def test_an_empty_checkpoint_file_after_a_power_cut_is_made_again(tmp_path):
    log = await open_log(tmp_path)
    await fill(log, 300)
    await log.close()
    (tmp_path / "checkpoint").write_bytes(b"")
    log = await open_log(tmp_path)
    assert log.size == 300
    await log.close()
    assert open_checkpoint((tmp_path / "checkpoint").read_bytes(), [VERIFIER]).size == 300


async def test_a_record_on_the_disk_whose_write_failed_all_the_same_never_counts(tmp_path, monkeypatch):
    log = await open_log(tmp_path)
    await log.append(b"first")
    with monkeypatch.context() as broken:
        break_syncs(broken)
        for lost in (b"longer than what follows it, so that it would be seen", b"lost too"):
            with pytest.raises(LogUnavailable):
                await log.append(lost)
    await log.append(b"second")
    await log.close()
    log = await open_log(tmp_path)
    assert log.entries(0, 9) == [b"first", b"second"]
    await log.close()


async def test_half_a_record_left_by_a_failed_write_never_counts(tmp_path, monkeypatch):
    without_the_kernel(monkeypatch)
    log = await open_log(tmp_path)
    await log.append(b"first")

    def half(file: int, data: bytes, offset: int) -> int:
        write(file, data[: len(data) // 2], offset)
        raise OSError(5, "Input/output error")

    write = os.pwrite
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", half)
        with pytest.raises(LogUnavailable):
            await log.append(b"torn in the middle of its write")
    await log.append(b"second")
    await log.close()
    log = await open_log(tmp_path)
    assert log.entries(0, 9) == [b"first", b"second"]
    await log.close()


async def test_a_writer_that_gave_up_loses_nothing_of_others(tmp_path):
    log = await open_log(tmp_path)
    futures = [log.append(b"leaf %d" % n) for n in range(20)]
    futures[7].cancel()
    done = await asyncio.gather(*futures, return_exceptions=True)
    assert [n for n in done if isinstance(n, int)] == [n for n in range(20) if n != 7]
    assert len(log.entries(0, 99)) == 20
    await log.close()


async def test_a_log_behind_its_own_signature_is_not_opened(tmp_path):
    log = await open_log(tmp_path)
    await fill(log, 10)
    await log.close()
    (segment,) = (tmp_path / "wal").iterdir()
    os.truncate(segment, len(segment.read_bytes().rstrip(b"\0")) - 1)
    with pytest.raises(LogCorrupt, match="records 9 to 9 were signed for and are missing"):
        await open_log(tmp_path)


async def test_a_rewritten_past_is_not_opened(tmp_path):
    log = await open_log(tmp_path)
    await fill(log, 10)
    await log.close()
    checkpoint = (tmp_path / "checkpoint").read_bytes()
    other = tmp_path / "other"
    log = await open_log(other)
    await fill(log, 10, start=100)
    await log.close()
    (other / "checkpoint").write_bytes(checkpoint)
    with pytest.raises(LogCorrupt, match="not those that were signed"):
        await open_log(other)


async def test_partial_tiles_stay_until_the_complete_one_is_there(tmp_path):
    """C2SP tlog-tiles: whoever holds an earlier checkpoint must still find the tiles it needs."""
    log = await open_log(tmp_path)
    for n in range(12):
        await log.append(b"leaf %d" % n)
        while log._publishing is not None:
            await asyncio.wait([log._publishing])
    partial = tmp_path / "tile/entries/000.p"
    assert {int(path.name) for path in partial.iterdir()} == set(range(1, 13))
    await fill(log, 256, 12)
    await log.close()
    assert not partial.exists()
    assert (tmp_path / tile_path(None, 0)).is_file()
    assert (tmp_path / tile_path(0, 1, 12)).is_file()


async def test_a_key_file_reads_back_as_the_key(tmp_path):
    key = KeyFolder(tmp_path).signing_key("log")
    loaded = load_pem_private_key((tmp_path / "log.pem").read_bytes(), None)
    assert loaded.private_bytes_raw() == key.private_bytes_raw()
    assert (tmp_path / "log.pem").stat().st_mode & 0o077 == 0


async def test_published_files_verify_while_the_log_is_open(tmp_path, request_record):
    log = await open_log(tmp_path)
    leaf = encode(request_record)
    await asyncio.gather(*(log.append(leaf) for _ in range(600)))
    await log.close()
    assert verify_log(tmp_path, VERIFIER).records == 600
    assert read_entries(tmp_path, 600) == [leaf] * 600
