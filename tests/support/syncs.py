"""How the log's records become durable: seen, kept from the kernel, or failing."""

import errno
import os
from collections.abc import Callable

import pytest

from audit.kernel_sync import KernelSync
from audit.wal import WriteAheadLog


def watch_syncs(monkeypatch: pytest.MonkeyPatch, synced: Callable[[], object]) -> None:
    """Call `synced` after each sync of a write-ahead log that succeeded, whoever made it."""
    finished = WriteAheadLog.finished

    def watched(wal: WriteAheadLog) -> None:
        finished(wal)
        synced()

    monkeypatch.setattr(WriteAheadLog, "finished", watched)


def without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have logs opened from here on sync by themselves, as where the kernel cannot."""
    monkeypatch.setattr(KernelSync, "open", lambda _: None)


def break_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every sync of a write-ahead log fail, the kernel's too."""

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    result = KernelSync._result

    def failed(sync: KernelSync) -> int:
        result(sync)
        return -errno.EIO

    monkeypatch.setattr(os, "fdatasync", broken)
    monkeypatch.setattr(KernelSync, "_result", failed)
