"""How the log's records become durable: seen, kept from the kernel, or failing."""

import errno
import os
from collections.abc import Callable

import pytest

from audit import kernel_write
from audit.kernel_write import KernelWrite
from audit.segment import Segment


def watch_syncs(monkeypatch: pytest.MonkeyPatch, synced: Callable[[], object]) -> None:
    """Call `synced` each time that a write-ahead log made records durable, whoever did it."""
    finished = Segment.finished

    def watched(segment: Segment) -> None:
        finished(segment)
        synced()

    monkeypatch.setattr(Segment, "finished", watched)


def without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have logs opened from here on write by themselves, as where the kernel cannot."""
    monkeypatch.setattr(KernelWrite, "open", lambda _: None)


def break_syncs(monkeypatch: pytest.MonkeyPatch, number: int = errno.EIO) -> None:
    """Make every write of a write-ahead log fail in its last step, the kernel's too.

    What was written stands on the disk then, and must not count.
    """

    def broken(_: int) -> None:
        raise OSError(number, os.strerror(number))

    result = KernelWrite._result

    def failed(write: KernelWrite) -> int:
        result(write)
        return -number

    monkeypatch.setattr(os, "fdatasync", broken)
    monkeypatch.setattr(KernelWrite, "_result", failed)


def refuse_direct_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> list[KernelWrite]:
    """Have the kernel say `number` of each write past its cache; return what it said so to, so far."""
    result, refused = KernelWrite._result, []

    def refusing(write: KernelWrite) -> int:
        given = result(write)
        if write._request.opcode != kernel_write._WRITE:
            return given
        refused.append(write)
        return -number

    monkeypatch.setattr(KernelWrite, "_result", refusing)
    return refused
