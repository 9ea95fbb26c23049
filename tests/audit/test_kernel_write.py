"""The kernel writes and says so; where it cannot, or is not let, the log writes by itself.

Seen to fail: with an error passed over, with a short write passed over, with a close that waits for
nothing, with a descriptor left open, with a kernel asked again that could not, with one kept that keeps
the loop waiting, and with one given up because a thread had the interpreter's lock.
"""

import asyncio
import errno
import mmap
import os
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import break_syncs

from audit import Log, kernel_write
from audit.kernel_write import BYTES_MAX, WAITED_MAX, KernelWrite
from audit.segment import BLOCK_BYTES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def opened(done):
    made = KernelWrite.open(done)
    if made is None:
        pytest.skip("this system lets nobody have the kernel write by itself")
    return made


def blocks(content: bytes, count: int = 1) -> bytes:
    return content.ljust(count * BLOCK_BYTES, b"\0")


@pytest.fixture
def told():
    return asyncio.Queue()


@pytest.fixture
async def write(told):
    made = opened(told.put_nowait)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def file(path):
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError:
        pytest.skip("this file system has no writes past its cache")
    yield descriptor
    os.close(descriptor)


async def open_log(folder):
    return await Log.open(folder, origin="example.org/one", key=KEY)


async def test_each_write_is_told_once_and_stands_in_the_file(write, told, file, path):
    written = b""
    for n, count in enumerate((1, 3, BYTES_MAX // BLOCK_BYTES, 1)):
        content = blocks(b"content %d" % n, count)
        assert write.start(file, content, len(written))
        assert await told.get() is None
        written += content
        assert path.read_bytes() == written
    assert told.empty()


def flushes(path: Path) -> int | None:
    """Return how often the disk under `path` had its cache flushed; None if it has none to flush."""
    device = os.stat(path).st_dev
    number = [str(os.major(device)), str(os.minor(device))]
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[:2] == number:
            cache = Path(f"/sys/block/{fields[2]}/queue/write_cache")
            # The 17th figure of a device, since Linux 5.5 (Documentation/admin-guide/iostats.rst).
            flushed = len(fields) > 18 and cache.exists() and cache.read_text() == "write back\n"
            return int(fields[18]) if flushed else None
    return None


async def test_each_write_has_the_disks_own_cache_flushed(write, told, file, tmp_path):
    before = flushes(tmp_path)
    if before is None:
        pytest.skip("this file system does not stand on a disk with a cache that Linux knows of")
    for n in range(50):
        assert write.start(file, blocks(b"content"), n * BLOCK_BYTES)
        assert await told.get() is None
    assert flushes(tmp_path) >= before + 50


async def test_what_went_wrong_is_told(write, told, file, monkeypatch):
    break_syncs(monkeypatch)
    assert write.start(file, blocks(b"content"), 0)
    error = await told.get()
    assert (error.errno, error.strerror) == (errno.EIO, os.strerror(errno.EIO))


async def test_less_than_was_to_be_written_is_a_failure(write, told, file, monkeypatch):
    result = KernelWrite._result
    monkeypatch.setattr(KernelWrite, "_result", lambda self: result(self) - BLOCK_BYTES)
    assert write.start(file, blocks(b"content", 2), 0)
    assert (await told.get()).errno == errno.ENOSPC


async def test_what_cannot_be_written_to_is_not_begun(write, told, tmp_path):
    (tmp_path / "readable").touch()
    descriptor = os.open(tmp_path / "readable", os.O_RDONLY)
    assert not write.start(descriptor, blocks(b"content"), 0)
    os.close(descriptor)
    await asyncio.sleep(0)
    assert told.empty()


async def test_a_close_waits_for_what_was_begun_and_leaves_nothing_open(told, file, path):
    before = set(os.listdir("/proc/self/fd"))
    write = opened(told.put_nowait)
    content = blocks(b"content", 64)
    assert write.start(file, content, 0)
    write.close()
    assert told.get_nowait() is None
    assert path.read_bytes() == content
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        dict.fromkeys(("x86_64", "aarch64"), dict.fromkeys(("setup", "destroy"), 9999)),
        # As where a sandbox lets writes be begun, and nobody hear of their end.
        {machine: calls | {"getevents": 9999} for machine, calls in kernel_write._NUMBERS.items()},
    ],
    ids=["another machine", "another system", "a sandbox"],
)
async def test_a_system_that_has_no_such_thing_leaves_nothing_open(monkeypatch, numbers):
    monkeypatch.setattr(kernel_write, "_NUMBERS", numbers)
    before = set(os.listdir("/proc/self/fd"))
    assert KernelWrite.open(print) is None
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_system_without_memory_to_spare_leaves_nothing_open(monkeypatch):
    def refusing(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", refusing)
    before = set(os.listdir("/proc/self/fd"))
    assert KernelWrite.open(print) is None
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_thread_that_computes_costs_nobody_the_kernel(tmp_path, monkeypatch):
    """It takes the interpreter's lock whenever it is let go of, and keeps it for milliseconds."""
    for bound in ("INLINE_BELOW_S", "STALLED_S"):
        monkeypatch.setattr(f"audit.disk_pace.{bound}", float("inf"))
    log = await open_log(tmp_path)
    await log.append(b"leaf 0")
    kernel, ended = log._commit._kernel, threading.Event()
    if kernel is None:
        pytest.skip("this system lets nobody have the kernel write by itself")

    def compute():
        while not ended.is_set():
            sum(range(1000))

    computing = threading.Thread(target=compute)
    computing.start()
    try:
        for n in range(50):
            await log.append(b"leaf %d" % (n + 1))
    finally:
        ended.set()
        computing.join()
    assert log._commit._kernel is kernel
    await log.close()


async def test_a_log_whose_kernel_cannot_after_all_writes_by_itself(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(KernelWrite, "start", lambda _, file, *__: bool(asked.append(file)))
    log = await open_log(tmp_path)
    assert [await log.append(b"leaf %d" % n) for n in range(3)] == [0, 1, 2]
    assert len(asked) <= 1
    await log.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
async def test_a_log_whose_file_system_takes_no_such_write_after_all_loses_nothing(
    tmp_path, monkeypatch, number
):
    asked = []

    def refused(write):
        asked.append(write)
        return -number

    monkeypatch.setattr(KernelWrite, "_result", refused)
    log = await open_log(tmp_path)
    prepared = []
    assert [await log.append(b"leaf %d" % n, prepared.append) for n in range(3)] == [0, 1, 2]
    assert len(asked) <= 1
    assert set(prepared) == {0, 1, 2}
    await log.close()
    log = await open_log(tmp_path)
    assert log.entries(0, 9) == [b"leaf 0", b"leaf 1", b"leaf 2"]
    await log.close()


async def test_a_file_system_without_such_writes_is_written_to_as_ever(tmp_path, monkeypatch):
    open_file = os.open

    def refusing(path, flags, *mode, **options):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return open_file(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refusing)
    log = await open_log(tmp_path)
    assert [await log.append(b"leaf %d" % n) for n in range(3)] == [0, 1, 2]
    await log.close()


async def test_a_file_system_that_writes_while_it_is_handed_what_to_write_has_a_thread(
    tmp_path, monkeypatch
):
    """Each such write would stop the loop, and with it everybody else."""
    asked = []
    start, ended = KernelWrite.start, KernelWrite._ended

    def slow(write, *arguments):
        asked.append(arguments)
        submit = write._submit

        def waits():
            submitted = submit()
            while not ended(write):
                time.sleep(1e-4)
            time.sleep(kernel_write.LONG_S)
            return submitted

        write._submit = waits
        begun = start(write, *arguments)
        write._submit = submit
        return begun

    monkeypatch.setattr(KernelWrite, "start", slow)
    monkeypatch.setattr("audit.disk_pace.INLINE_BELOW_S", float("inf"))
    monkeypatch.setattr("audit.disk_pace.STALLED_S", float("inf"))
    log = await open_log(tmp_path)
    if log._commit._loop is not None and log._commit._kernel is None:
        pytest.skip("this system lets nobody have the kernel write by itself")
    assert [await log.append(b"leaf %d" % n) for n in range(9)] == list(range(9))
    assert len(asked) == WAITED_MAX
    await log.close()


def segments(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.wal"))


async def test_records_are_on_the_disk_when_they_are_answered(tmp_path):
    log = await open_log(tmp_path)
    for n in range(20):
        appended = [log.append(b"leaf %d of %d" % (k, n)) for k in range(1 + n % 5)]
        await asyncio.gather(*appended)
        written = segments(tmp_path / "wal")
        assert all(b"leaf %d of %d" % (k, n) in written for k in range(1 + n % 5))
    await log.close()


def test_memory_for_direct_writes_begins_with_a_page():
    assert BYTES_MAX % mmap.PAGESIZE == BYTES_MAX % BLOCK_BYTES == 0
