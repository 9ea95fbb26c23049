"""Runs commands that end together, and with whoever started them, however that one ended.

    python launch.py <command> ... -- <command> ...

When one of the commands ends, or standard input closes because the process at its other end closed it
or was killed, the whole process group is ended: politely first, then for certain. Started by path, so
that it costs one small interpreter and imports nothing of ours.

What the commands write may quote what devices and callers sent. Only lines of the forms in `LISTED`
are passed on, and of a traceback the places in the code and the types of built-in errors. The rest is
counted.
"""

import builtins
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

GRACE_S = 2.0
SEPARATOR = "--"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LISTED = re.compile(
    r"(?:INFO|WARNING|ERROR) *: +(?:"
    r"Starting Flower Super(?:Link|Exec)"
    r"|Starting the SuperLink (?:Runtime|Control|Fleet) HTTP API on [0-9.]+:[0-9]+\."
    r"|Connection attempt failed, retrying in [0-9.]+ seconds"
    r"|Connection successful after [0-9.]+ seconds and [0-9]+ tries\."
    r"|SuperExec terminated gracefully\."
    r"|SuperLinkLifespan: (?:start|stop)"
    r")|[0-9TZ:.-]+ [A-Z]+ \[uvicorn\.error\] (?:"
    r"(?:Started|Finished) server process \[[0-9]+\]"
    r"|Application (?:startup|shutdown) complete\."
    r"|Shutting down"
    r")|Traceback \(most recent call last\):"
)
_PLACE = re.compile(r' +File "(/[^"]+\.py)", line [0-9]+, in [\w<>]+')
_RAISED = re.compile(r"(\w+)(?:: (\[Errno [0-9]+\])?.*)?")


def main(arguments: list[str]) -> None:
    """Run the commands until the first of them, or standard input, ends."""
    # The group is signalled as a whole; this process goes last.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    over = threading.Event()
    read, write = os.pipe()
    processes = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=write, stderr=write)
        for command in _commands(arguments)
    ]
    os.close(write)
    passing = Passing(read)
    passing.start()
    for process in processes:
        _when_done(process.wait, over)
    _when_done(_lifeline_closes, over)
    over.wait()
    os.killpg(0, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            break
    passing.join(GRACE_S)
    say(f"withheld: {passing.withheld} lines")
    os.killpg(0, signal.SIGKILL)


class Passing(threading.Thread):
    """Passes on those lines of a pipe that may be written."""

    def __init__(self, pipe: int) -> None:
        super().__init__(daemon=True)
        self.withheld = 0
        self._pipe = pipe

    def run(self) -> None:
        """Read to the end."""
        with os.fdopen(self._pipe, errors="replace") as lines:
            for line in lines:
                kept = screened(line.rstrip("\n"))
                if kept is None:
                    self.withheld += 1
                else:
                    say(kept)


def screened(line: str) -> str | None:
    """Return what may be written of a line; None if that is nothing."""
    line = _COLOUR.sub("", line)
    if LISTED.fullmatch(line):
        return line
    place = _PLACE.fullmatch(line)
    if place is not None:
        return line if Path(place[1]).is_file() else None
    raised = _RAISED.fullmatch(line)
    kind = getattr(builtins, raised[1], None) if raised is not None else None
    if raised is not None and isinstance(kind, type) and issubclass(kind, BaseException):
        return " ".join(filter(None, raised.groups()))
    return None


def say(line: str) -> None:
    """Write one line at once."""
    os.write(1, f"{line}\n".encode(errors="replace"))


def _commands(arguments: list[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for argument in arguments:
        if argument == SEPARATOR:
            commands.append([])
        else:
            commands[-1].append(argument)
    return commands


def _when_done(wait: Callable[[], object], over: threading.Event) -> None:
    def run() -> None:
        wait()
        over.set()

    threading.Thread(target=run, daemon=True).start()


def _lifeline_closes() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
