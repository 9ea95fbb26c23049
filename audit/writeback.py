"""Has the system begin to write what a file's cache holds, so that a sync finds it on its way."""

import ctypes
from collections.abc import Callable
from typing import Final

# <linux/fs.h>: begin to write the pages that are dirty, and wait for nothing.
_SYNC_FILE_RANGE_WRITE: Final = 2


def _found() -> Callable[[int, int, int, int], int] | None:
    # Linux's own call, which Python has no name for.
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    found: Callable[[int, int, int, int], int] = call
    return found


_sync_file_range = _found()


def start_writing(file: int, offset: int, length: int) -> None:
    """Have `length` bytes from `offset` on written to the disk, without waiting until they are.

    A hint: what it cannot do, the sync that makes them durable does, and says what went wrong.
    """
    if _sync_file_range is not None:
        _sync_file_range(file, offset, length, _SYNC_FILE_RANGE_WRITE)
