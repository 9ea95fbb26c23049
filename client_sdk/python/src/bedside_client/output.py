"""The agent's standard output and error: its own events and errors, and nothing of what it works on.

A device holds the data itself. What libraries and C code write by themselves (ONNX Runtime, Flower,
`logging` without a handler, warnings, tracebacks) may quote it, and goes nowhere. A crash leaves no
core dump, which would hold all of it.
"""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STDOUT: Final = 1
STDERR: Final = 2


class Output:
    """Holds the real standard output and error."""

    def __init__(self, out: int, err: int) -> None:
        self._out = out
        self._err = err

    def event(self, line: str) -> None:
        """Write one line to standard output, at once."""
        os.write(self._out, f"{line}\n".encode())

    def report(self, line: str) -> None:
        """Write one line to standard error, at once."""
        os.write(self._err, f"{line}\n".encode())


@contextmanager
def own_output() -> Iterator[Output]:
    """Keep standard output and error for the agent, until the end of the block."""
    forbid_core_dumps()
    _flush()
    out, err = os.dup(STDOUT), os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (STDOUT, STDERR):
        os.dup2(nowhere, number)
    os.close(nowhere)
    try:
        yield Output(out, err)
    finally:
        _flush()
        os.dup2(out, STDOUT)
        os.dup2(err, STDERR)
        os.close(out)
        os.close(err)


def forbid_core_dumps() -> None:
    """Let neither this process nor its children leave a core dump.

    Linux ignores a limit of 0 where dumps go to a program; one of 1 byte stops them too (core(5)).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY else min(hard, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def place_of(error: BaseException) -> str:
    """Return the type of an error, and the module and line that raised it; never what it says."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place else ""
    return f"{type(error).__qualname__}{where}"


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
