"""The kernel syncs and says so; where it cannot, or is not let, the log syncs by itself.

Seen to fail: with an error passed over, with a close that waits for nothing, with a descriptor left
open, and with a kernel asked again that could not.
"""

import asyncio
import errno
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import break_syncs

from audit import Log, kernel_sync
from audit.kernel_sync import KernelSync


@pytest.fixture
def told():
    return asyncio.Queue()


@pytest.fixture
async def sync(told):
    opened = KernelSync.open(told.put_nowait)
    if opened is None:
        pytest.skip("this system lets nobody have the kernel sync by itself")
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


async def test_each_sync_is_told_once(sync, told, file):
    for n in range(3):
        os.pwrite(file, b"content", 7 * n)
        assert sync.start(file)
        assert await told.get() is None
    assert told.empty()


async def test_what_went_wrong_is_told(sync, told, file, monkeypatch):
    break_syncs(monkeypatch)
    assert sync.start(file)
    error = await told.get()
    assert (error.errno, error.strerror) == (errno.EIO, os.strerror(errno.EIO))


async def test_what_has_no_sync_is_not_begun(sync, told):
    read, write = os.pipe()
    assert not sync.start(write)
    os.close(read)
    os.close(write)
    await asyncio.sleep(0)
    assert told.empty()


async def test_a_close_waits_for_what_was_begun_and_leaves_nothing_open(told, file):
    before = set(os.listdir("/proc/self/fd"))
    sync = KernelSync.open(told.put_nowait)
    if sync is None:
        pytest.skip("this system lets nobody have the kernel sync by itself")
    assert sync.start(file)
    sync.close()
    assert told.get_nowait() is None
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "numbers", [{}, dict.fromkeys(("x86_64", "aarch64"), dict.fromkeys(("setup", "destroy"), 9999))]
)
async def test_a_system_that_has_no_such_thing_leaves_nothing_open(monkeypatch, numbers):
    monkeypatch.setattr(kernel_sync, "_NUMBERS", numbers)
    before = set(os.listdir("/proc/self/fd"))
    assert KernelSync.open(print) is None
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_log_whose_kernel_cannot_after_all_syncs_by_itself(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(KernelSync, "start", lambda _, file: bool(asked.append(file)))
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    assert [await log.append(b"leaf %d" % n) for n in range(3)] == [0, 1, 2]
    assert len(asked) <= 1
    await log.close()


def segments(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.wal"))


async def test_records_are_on_the_disk_when_they_are_answered(tmp_path):
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    for n in range(20):
        appended = [log.append(b"leaf %d of %d" % (k, n)) for k in range(1 + n % 5)]
        await asyncio.gather(*appended)
        written = segments(tmp_path / "wal")
        assert all(b"leaf %d of %d" % (k, n) in written for k in range(1 + n % 5))
    await log.close()
