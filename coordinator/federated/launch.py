"""Runs commands that end together, and with whoever started them, however that one ended.

    python launch.py <command> ... -- <command> ...

When one of the commands ends, or standard input closes because the process at its other end closed it
or was killed, the whole process group is ended: politely first, then for certain. Started by path, so
that it costs one small interpreter and imports nothing of ours.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

GRACE_S = 2.0
SEPARATOR = "--"


def main(arguments: list[str]) -> None:
    """Run the commands until the first of them, or standard input, ends."""
    # The group is signalled as a whole; this process goes last.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    over = threading.Event()
    processes = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in _commands(arguments)
    ]
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
    os.killpg(0, signal.SIGKILL)


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
