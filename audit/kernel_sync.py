"""Has the kernel make a file durable by itself, and the event loop told once it has.

Linux's own asynchronous input and output (io_submit(2), IOCB_CMD_FDSYNC since Linux 4.18): no thread
waits, and none has to be given the interpreter's lock before the loop hears of it.
"""

import asyncio
import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Self

# The C library has no functions for these calls; <asm/unistd.h> numbers them by architecture.
_NUMBERS: Final = {
    "x86_64": {"setup": 206, "destroy": 207, "getevents": 208, "submit": 209},
    "aarch64": {"setup": 0, "destroy": 1, "submit": 2, "getevents": 4},
}

# <linux/aio_abi.h>
_FDSYNC: Final = 3
_TELL_EVENTFD: Final = 1


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


class KernelSync:
    """Syncs one file at a time, on one event loop."""

    def __init__(self, calls: dict[str, int], done: Callable[[OSError | None], None]) -> None:
        """Use `open`.

        Raises:
            OSError: if the system does not allow it.
        """
        system: Any = ctypes.CDLL(None, use_errno=True).syscall
        system.restype = ctypes.c_long
        call = {name: partial(system, ctypes.c_long(number)) for name, number in calls.items()}
        context, one = ctypes.c_ulong(0), ctypes.c_long(1)
        self._done = done
        self._begun = False
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            _check(call["setup"](ctypes.c_int(1), ctypes.byref(context)))
        except OSError:
            os.close(self._eventfd)
            raise
        # The kernel reads and writes these, so that they live as long as the context.
        self._request = _Request(opcode=_FDSYNC, flags=_TELL_EVENTFD, eventfd=self._eventfd)
        self._event = _Event()
        requests = (ctypes.POINTER(_Request) * 1)(ctypes.pointer(self._request))
        self._submit = partial(call["submit"], context, one, requests)
        self._get = partial(call["getevents"], context, one, one, ctypes.pointer(self._event), None)
        self._destroy = partial(call["destroy"], context)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._eventfd, self._told)

    @classmethod
    def open(cls, done: Callable[[OSError | None], None]) -> Self | None:
        """Return one that calls `done` with what went wrong, if anything, after each sync.

        None where the system has no such thing, or a sandbox forbids it.
        """
        calls = _NUMBERS.get(platform.machine())
        if platform.system() != "Linux" or sys.maxsize < 1 << 32 or calls is None:
            return None
        try:
            return cls(calls, done)
        except OSError:
            return None

    def start(self, file: int) -> bool:
        """Begin to sync `file`; False if the system cannot, and nothing was begun."""
        self._request.file = file
        self._begun = self._submit() == 1
        return self._begun

    def close(self) -> None:
        """Let go of it, once what was begun has ended; that is waited for, and told as ever."""
        self._loop.remove_reader(self._eventfd)
        while self._begun:
            with contextlib.suppress(InterruptedError):
                self._collect()
        self._destroy()
        os.close(self._eventfd)

    def _told(self) -> None:
        os.eventfd_read(self._eventfd)
        self._collect()

    def _collect(self) -> None:
        result = self._result()
        self._begun = False
        self._done(OSError(-result, os.strerror(-result)) if result < 0 else None)

    def _result(self) -> int:
        """Return 0 or a negative error number, once what was begun has ended."""
        _check(self._get())
        result: int = self._event.result
        return result


def _check(returned: int) -> None:
    if returned < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
