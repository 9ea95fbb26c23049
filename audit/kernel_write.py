"""Has the kernel write or sync a file by itself, and the event loop told once it has.

Linux's own asynchronous input and output (io_submit(2); RWF_DSYNC since Linux 4.13, IOCB_CMD_FDSYNC
since 4.18): no thread waits, and none has to be given the interpreter's lock before the loop hears of
it.
"""

import asyncio
import contextlib
import ctypes
import errno
import mmap
import os
import platform
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Self

# The C library has no functions for these calls; <asm/unistd.h> numbers them by architecture.
_NUMBERS: Final = {
    "x86_64": {"setup": 206, "destroy": 207, "getevents": 208, "submit": 209},
    "aarch64": {"setup": 0, "destroy": 1, "submit": 2, "getevents": 4},
}

# <linux/aio_abi.h> and <linux/fs.h>
_WRITE: Final = 1
_SYNC: Final = 3
_TELL_EVENTFD: Final = 1
_DURABLY: Final = 2

# Once or twice it may be that something else had the processor.
LONG_S: Final = 400e-6
WAITED_MAX: Final = 3

# What is written at once at most; memory is used as far as it was ever needed.
BYTES_MAX: Final = 4 * 1024 * 1024


class _Request(ctypes.Structure):
    """`struct iocb`."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("file", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("eventfd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """`struct io_event`."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class KernelWrite:
    """Makes one thing at a time durable, on one event loop."""

    def __init__(self, calls: dict[str, int], done: Callable[[OSError | None], None]) -> None:
        """Use `open`.

        Raises:
            OSError: if the system does not allow it.
        """
        call = {name: _system_call(ctypes.CDLL, number) for name, number in calls.items()}
        context, none, one = ctypes.c_ulong(0), ctypes.c_long(0), ctypes.c_long(1)
        self._done = done
        self._begun = False
        # How many writes in a row took long to be handed over, and had ended by then.
        self._waited = 0
        with contextlib.ExitStack() as undo:
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            undo.callback(os.close, self._eventfd)
            _check(call["setup"](ctypes.c_int(1), ctypes.byref(context)))
            self._destroy = partial(call["destroy"], context)
            undo.callback(self._destroy)
            # The kernel reads and writes these, so that they live as long as the context.
            # The memory begins with a page, as a direct write needs it.
            self._memory = mmap.mmap(-1, BYTES_MAX)
            self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            self._request = _Request(flags=_TELL_EVENTFD, eventfd=self._eventfd)
            self._event = _Event()
            requests = (ctypes.POINTER(_Request) * 1)(ctypes.pointer(self._request))
            # With the interpreter's lock kept, for 14 us. A thread that computes would have it for five
            # milliseconds, as if the file system had waited for the disk.
            submit = _system_call(ctypes.PyDLL, calls["submit"])
            self._submit = partial(submit, context, one, requests)
            event = ctypes.pointer(self._event)
            self._get = partial(call["getevents"], context, one, one, event, None)
            # A sandbox may forbid this call alone; whoever waits would then be told nothing.
            _check(call["getevents"](context, none, none, event, None))
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._eventfd, self._told)
            undo.pop_all()

    @classmethod
    def open(cls, done: Callable[[OSError | None], None]) -> Self | None:
        """Return one that calls `done` with what went wrong, if anything, after each.

        None where the system has no such thing, or a sandbox forbids it.
        """
        calls = _NUMBERS.get(platform.machine())
        if platform.system() != "Linux" or sys.maxsize < 1 << 32 or calls is None:
            return None
        try:
            return cls(calls, done)
        except OSError:
            return None

    def start(self, file: int, blocks: bytes, offset: int) -> bool:
        """Begin to write `blocks`, BYTES_MAX at most, to `file`, which is open for direct writes.

        False if the system cannot, and nothing was begun.
        """
        request = self._request
        request.opcode, request.rw_flags, request.file = _WRITE, _DURABLY, file
        request.buffer, request.offset, request.length = self._address, offset, len(blocks)
        self._memory[: len(blocks)] = blocks
        started = time.perf_counter()
        self._begun = self._submit() == 1
        if time.perf_counter() - started < LONG_S:
            self._waited = 0
        elif self._begun:
            self._waited = self._waited + 1 if self._ended() else 0
        return self._begun

    def sync(self, file: int) -> bool:
        """Begin to make durable what was written to `file`; False if the system cannot."""
        request = self._request
        request.opcode, request.rw_flags, request.file = _SYNC, 0, file
        request.buffer = request.offset = request.length = 0
        self._begun = self._submit() == 1
        return self._begun

    @property
    def waits(self) -> bool:
        """Whether this file system writes while it is handed what to write, as some do."""
        return self._waited >= WAITED_MAX

    def close(self) -> None:
        """Let go of it, once what was begun has ended; that is waited for, and told as ever."""
        self._loop.remove_reader(self._eventfd)
        while self._begun:
            with contextlib.suppress(InterruptedError):
                self._collect()
        self._destroy()
        os.close(self._eventfd)

    def _ended(self) -> bool:
        ended = select.poll()
        ended.register(self._eventfd, select.POLLIN)
        return bool(ended.poll(0))

    def _told(self) -> None:
        os.eventfd_read(self._eventfd)
        self._collect()

    def _collect(self) -> None:
        result = self._result()
        self._begun = False
        if 0 <= result != self._request.length:
            # Where the disk is full, if it is not said otherwise.
            result = -errno.ENOSPC
        self._done(OSError(-result, os.strerror(-result)) if result < 0 else None)

    def _result(self) -> int:
        """Return the bytes written or a negative error number, once what was begun has ended."""
        _check(self._get())
        result: int = self._event.result
        return result


def _system_call(library: type[ctypes.CDLL], number: int) -> Callable[..., int]:
    call = library(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return partial(call, ctypes.c_long(number))


def _check(returned: int) -> None:
    if returned < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
