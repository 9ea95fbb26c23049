"""Lets a command that is told to stop clear away what it has begun."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# What a shell reports of a process that a signal ended; the command line gives Ctrl-C 130 itself.
_SIGNALLED: Final = 128


@contextmanager
def stopped_cleanly() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the command as Ctrl-C does; the exit status is 143 or 129.

    By default they end the process where it stands, with all its temporary folders. What the process
    was started to ignore, as by `nohup`, it goes on ignoring.
    """
    own = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in own:
        signal.signal(number, _unwind)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, signal.SIG_DFL)


def _unwind(number: int, _: FrameType | None) -> None:
    sys.exit(_SIGNALLED + number)
