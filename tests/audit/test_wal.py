import contextlib
import errno
import mmap
import os
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import LogCorrupt
from audit import segment as segment_module
from audit import wal as wal_module
from audit.publish import Publisher
from audit.wal import WriteAheadLog

LEAF = b"a leaf of some length " * 20


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(segment_module, "SEGMENT_BYTES", 16 * 1024)


@pytest.fixture
def wal(tmp_path):
    log = WriteAheadLog(tmp_path / "wal")
    log.open()
    yield log
    log.close()


def read(folder):
    log = WriteAheadLog(folder)
    try:
        return log.open()
    finally:
        log.close()


def append(log, start, count):
    for index in range(start, start + count):
        log.begin([b"%d " % index + LEAF], index)
        log.finish()


def leaves(start, count):
    return [b"%d " % index + LEAF for index in range(start, start + count)]


def test_leaves_are_read_back_over_many_segments(wal, tmp_path):
    append(wal, 0, 200)
    assert len(list((tmp_path / "wal").glob("*.wal"))) > 4
    assert read(tmp_path / "wal") == (0, leaves(0, 200))


def test_a_segment_made_ahead_and_one_that_is_needed_are_never_the_same_file(
    wal, tmp_path, monkeypatch
):
    """Were both to fill one temporary file, the zeros of one could land on the other's records."""
    append(wal, 0, 25)
    sync, making, go_on = os.fsync, threading.Event(), threading.Event()
    failures = []

    def slow(file):
        if threading.current_thread().name == "preparing":
            making.set()
            go_on.wait(30)
        sync(file)

    def run(work):
        try:
            work()
        except OSError as error:
            failures.append(error)

    monkeypatch.setattr(os, "fsync", slow)
    preparing = threading.Thread(target=run, args=(wal.prepare,), name="preparing")
    appending = threading.Thread(target=run, args=(lambda: append(wal, 25, 40),))
    preparing.start()
    assert making.wait(30)
    appending.start()
    # With a lock the writer now waits; without one it overtakes. Either way nothing may be lost.
    appending.join(0.2)
    go_on.set()
    preparing.join()
    appending.join()
    assert not failures
    assert read(tmp_path / "wal") == (0, leaves(0, 65))


@given(st.data())
def test_a_tail_torn_anywhere_leaves_the_whole_records_before_it(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn") / "wal"
    log = WriteAheadLog(folder)
    log.open()
    append(log, 0, 8)
    log.close()
    (segment,) = folder.glob("*.wal")
    content = segment.read_bytes()
    used = len(content.rstrip(b"\0"))
    cut = data.draw(st.integers(0, used - 1))
    segment.write_bytes(content[:cut] + bytes(len(content) - cut))
    first, kept = read(folder)
    assert first == 0
    assert kept == leaves(0, len(kept))
    assert len(kept) < 8
    # What was torn is gone for good: the log goes on behind the last whole record.
    log = WriteAheadLog(folder)
    log.open()
    append(log, len(kept), 3)
    log.close()
    assert read(folder) == (0, leaves(0, len(kept) + 3))


def write_blocks(blocks, part=1.0):
    """Write the first `part` of `blocks`, as the kernel does; a disk writes whole ones."""
    length = int(len(blocks.data) * part) // segment_module.BLOCK_BYTES * segment_module.BLOCK_BYTES
    with mmap.mmap(-1, len(blocks.data)) as memory:
        memory[:] = blocks.data
        with memoryview(memory) as whole, whole[:length] as written:
            # Where there is no such write, the cache has to do.
            file = blocks.file if blocks.direct is None else blocks.direct
            assert os.pwritev(file, [written], blocks.offset) == length


WAYS = st.sampled_from(["through the cache", "past it"])
ENDS = st.sampled_from(["durable", "durable", "failed", "torn", "opened again"])
SIZES = st.one_of(st.integers(1, 900), st.integers(3000, 9000))


@given(st.lists(st.tuples(WAYS, ENDS, st.lists(SIZES, min_size=1, max_size=3)), max_size=12))
def test_whichever_way_they_are_written_what_is_durable_is_read_and_nothing_else(
    tmp_path_factory, appends
):
    folder = tmp_path_factory.mktemp("ways") / "wal"
    log = WriteAheadLog(folder)
    log.open()
    durable = []
    for number, (way, end, sizes) in enumerate(appends):
        new = [b"%d " % number + b"x" * size for size in sizes]
        blocks = log.blocks(new, len(durable)) if way == "past it" else None
        if blocks is None:
            log.begin(new, len(durable))
        else:
            write_blocks(blocks, 0.5 if end == "torn" else 1)
        if end in ("durable", "opened again"):
            log.finish() if blocks is None else log.finished()
            durable += new
        if end == "opened again":
            log.close()
            log = WriteAheadLog(folder)
            assert log.open() == (0, durable)
    log.cut()
    log.close()
    assert read(folder) == (0, durable)


def test_a_leaf_whose_write_failed_never_comes_back_behind_one_that_fits_before_it(wal, tmp_path):
    """The first block ends where its leaf does, so that nothing but the second would follow it."""
    frame = len(segment_module.framed([b""]))
    lost = wal.blocks([b"l" * (segment_module.BLOCK_BYTES - frame), b"lost too"], 0)
    write_blocks(lost)
    kept = b"k" * (segment_module.BLOCK_BYTES - frame)
    write_blocks(wal.blocks([kept], 0))
    wal.finished()
    assert read(tmp_path / "wal") == (0, [kept])


def test_a_log_that_is_closed_leaves_nothing_open(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    log = WriteAheadLog(tmp_path / "wal")
    log.open()
    append(log, 0, 60)
    log.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_blocks_hold_what_is_durable_before_the_leaves_and_zeros_behind_them(wal):
    append(wal, 0, 3)
    blocks = wal.blocks([b"one more"], 3)
    assert blocks.offset % segment_module.BLOCK_BYTES == 0
    assert len(blocks.data) == segment_module.BLOCK_BYTES
    assert blocks.data.rstrip(b"\0") == segment_module.framed([*leaves(0, 3), b"one more"])


def test_damage_before_the_last_segment_is_not_taken_for_a_torn_tail(wal, tmp_path):
    append(wal, 0, 120)
    first, second, *_ = sorted((tmp_path / "wal").glob("*.wal"))
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    with pytest.raises(LogCorrupt, match=r"record 0 .* is damaged|lacks record"):
        read(tmp_path / "wal")
    content[100] ^= 1
    first.write_bytes(content)
    second.unlink()
    with pytest.raises(LogCorrupt, match="lacks record"):
        read(tmp_path / "wal")


def test_a_file_that_is_no_segment_is_named(wal, tmp_path):
    (tmp_path / "wal/notes.wal").touch()
    with pytest.raises(LogCorrupt, match=r"notes\.wal is not a segment"):
        read(tmp_path / "wal")


def test_segments_are_let_go_of_one_by_one_from_the_oldest(wal, tmp_path, monkeypatch):
    monkeypatch.setattr(wal_module, "SEGMENTS_KEPT", 2)
    append(wal, 0, 200)
    while (needed := wal.releasable()) is not None:
        wal.release()
        first, kept = read(tmp_path / "wal")
        assert first == needed
        assert kept == leaves(first, 200 - first)
    assert len(list((tmp_path / "wal").glob("*.wal"))) == 2


def test_a_segment_that_could_not_be_removed_is_tried_again(wal, tmp_path, monkeypatch):
    monkeypatch.setattr(wal_module, "SEGMENTS_KEPT", 2)
    append(wal, 0, 200)
    needed = wal.releasable()
    with monkeypatch.context() as broken:

        def refuse(*_, **__):
            raise PermissionError

        broken.setattr(wal_module.Path, "unlink", refuse)
        with pytest.raises(PermissionError):
            wal.release()
    assert wal.releasable() == needed
    wal.release()
    assert read(tmp_path / "wal") == (needed, leaves(needed, 200 - needed))


def test_the_tiles_of_all_needed_records_are_durable_before_a_segment_goes(tmp_path, monkeypatch):
    """At size 1,000 only 768 records are in complete bundles: the fourth comes with a later batch."""
    publisher = Publisher(tmp_path)
    bundles = [f"tile/entries/00{n}" for n in range(5)]
    publisher.publish(1000, dict.fromkeys(bundles[:3], b"bundle"), {}, b"checkpoint")
    publisher.publish(1100, dict.fromkeys(bundles[3:4], b"bundle"), {}, b"checkpoint")
    publisher.publish(1300, dict.fromkeys(bundles[4:], b"bundle"), {}, b"checkpoint")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    publisher.sync(1000)
    assert {str(tmp_path / path) for path in bundles[:4]} <= set(synced)
    assert str(tmp_path / "tile/entries") in synced
    assert str(tmp_path) in synced


@contextlib.contextmanager
def one_open_segment_at_most(monkeypatch):
    """Let a segment be opened as long as no other one is."""
    opened, init, close = [], segment_module.Segment.__init__, segment_module.Segment.close

    def counted(segment, *arguments, **options):
        if opened:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        init(segment, *arguments, **options)
        opened.append(segment)

    with monkeypatch.context() as patched:
        patched.setattr(segment_module.Segment, "__init__", counted)
        patched.setattr(
            segment_module.Segment, "close", lambda self: (opened.remove(self), close(self))
        )
        yield


def test_a_compaction_for_which_descriptors_lack_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    folder = tmp_path / "wal"
    log = WriteAheadLog(folder)
    log.open()
    append(log, 0, 8)
    log.close()
    before = set(os.listdir("/proc/self/fd"))
    with one_open_segment_at_most(monkeypatch):
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            WriteAheadLog(folder).open(5)
        assert set(os.listdir("/proc/self/fd")) == before
        log = WriteAheadLog(folder)
        log.open()
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            log.compact(5)
        append(log, 8, 2)
        log.close()
    log = WriteAheadLog(folder)
    assert log.open(5) == (5, leaves(5, 5))
    log.close()


def test_what_is_durable_after_a_compaction_stopped_half_way_is_not_taken_for_replaced(
    wal, tmp_path, monkeypatch
):
    """Killed before it goes on, the log opens with the minimum index, which was durable before."""
    append(wal, 0, 8)
    sync = wal_module.sync_folder

    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(wal_module, "sync_folder", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        wal.compact(5)
    # Were the new segment's name lost, so would be what stands in it alone.
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        append(wal, 8, 1)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        wal.blocks(leaves(8, 1), 8)
    monkeypatch.setattr(wal_module, "sync_folder", sync)
    append(wal, 8, 2)
    shutil.copytree(tmp_path / "wal", tmp_path / "killed")
    log = WriteAheadLog(tmp_path / "killed")
    assert log.open(5) == (5, leaves(5, 5))
    log.close()
    wal.compact(5)
    assert [path.name for path in (tmp_path / "wal").glob("*.wal")] == [f"{5:020}.wal"]


def test_a_name_that_a_killed_process_gave_is_durable_before_anything_is_appended(
    wal, tmp_path, monkeypatch
):
    append(wal, 0, 1)
    synced, sync = [], wal_module.sync_folder
    monkeypatch.setattr(wal_module, "sync_folder", lambda folder: (synced.append(folder), sync(folder)))
    read(tmp_path / "wal")
    assert tmp_path / "wal" in synced


def test_whoever_prepares_finds_an_open_segment_at_any_instant(tmp_path):
    """As a thread does that prepares the next segment while another one begins it."""

    class Watched(WriteAheadLog):
        beginning = False

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_last" and self.beginning:
                self.prepare()

    log = Watched(tmp_path / "wal")
    log.open()
    log.beginning = True
    append(log, 0, 80)
    log.beginning = False
    log.close()
    assert len(list((tmp_path / "wal").glob("*.wal"))) > 1
