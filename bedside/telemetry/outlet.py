"""The process's standard output and error, kept for what is meant to be written there.

Whatever else writes to them by itself (C code such as gRPC's core, ONNX Runtime and CUDA, a library's
own handler or `print`, the interpreter's tracebacks and warnings) writes into a pipe instead. What
comes out of it is counted and let go. So does what a child process writes that inherits them.
"""

import contextlib
import os
import sys
import threading
from typing import Final

from bedside.telemetry.dropped import Dropped, What

STDOUT: Final = 1
STDERR: Final = 2
JOIN_S: Final = 1.0
_CHUNK_BYTES: Final = 1 << 16


class Outlet:
    """Holds the real standard output and error from its making to `close`."""

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        _flush()
        self._out, self._err = os.dup(STDOUT), os.dup(STDERR)
        self._pipe, write = os.pipe()
        for number in (STDOUT, STDERR):
            os.dup2(write, number)
        os.close(write)
        self._reader = threading.Thread(target=self._count, name="withheld-output", daemon=True)
        self._reader.start()

    @property
    def error_file(self) -> int:
        """The real standard error, for what can write there without a lock."""
        return self._err

    def say(self, text: str) -> None:
        """Write one line to the real standard output, at once."""
        _write(self._out, text)

    def report(self, line: str) -> None:
        """Write one line to the real standard error, at once."""
        _write(self._err, line)

    def restore(self) -> None:
        """Give the process its standard output and error back, and count the last that was withheld."""
        _flush()
        os.dup2(self._out, STDOUT)
        os.dup2(self._err, STDERR)
        # A child that inherited the pipe may live on; nobody waits for it.
        self._reader.join(timeout=JOIN_S)

    def close(self) -> None:
        """End `say` and `report`."""
        os.close(self._out)
        os.close(self._err)

    def _count(self) -> None:
        pending = False
        while chunk := os.read(self._pipe, _CHUNK_BYTES):
            self._dropped.add(What.OUTPUT, chunk.count(b"\n"))
            pending = not chunk.endswith(b"\n")
        self._dropped.add(What.OUTPUT, int(pending))
        os.close(self._pipe)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may be gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _write(number: int, line: str) -> None:
    data = f"{line}\n".encode(errors="replace")
    # A reader that left, or a full disk, must not stop the service.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(number, data) :]
