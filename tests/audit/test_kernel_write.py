"""The kernel writes, syncs and says so, or says that it cannot.

Seen to fail: with an error passed over, with a short write passed over, with a close that waits for
nothing, with a descriptor left open, with a kernel asked again that could not, with one kept that keeps
the loop waiting, and with one given up because a thread had the interpreter's lock.
"""

import asyncio
import errno
import mmap
import os
from pathlib import Path

import pytest
from support.syncs import break_syncs

from audit import kernel_write
from audit.kernel_write import BYTES_MAX, KernelWrite
from audit.segment import BLOCK_BYTES


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


async def test_what_was_written_before_is_synced_and_told(write, told, file, path, tmp_path):
    before, cached = flushes(tmp_path), os.open(path, os.O_WRONLY)
    for n in range(50):
        os.pwrite(cached, b"content %d" % n, n * BLOCK_BYTES)
        assert write.sync(cached)
        assert await told.get() is None
    os.close(cached)
    assert told.empty()
    assert before is None or flushes(tmp_path) >= before + 50


async def test_what_went_wrong_is_told(write, told, file, monkeypatch):
    break_syncs(monkeypatch)
    for begin in (lambda: write.start(file, blocks(b"content"), 0), lambda: write.sync(file)):
        assert begin()
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
    read, other = os.pipe()
    assert not write.sync(other)
    os.close(read)
    os.close(other)
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


def test_memory_for_direct_writes_begins_with_a_page():
    assert BYTES_MAX % mmap.PAGESIZE == BYTES_MAX % BLOCK_BYTES == 0
