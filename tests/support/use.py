"""What a process holds, compared before and after it was sent much: nothing of that may stay."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

LOOKS = 2000
FILES = 2
THREADS = 4
MEMORY_BYTES = 64 << 20


class Use:
    """What a process holds: files and sockets, threads, memory."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def files(self) -> int:
        return self._process.num_fds()

    def threads(self) -> int:
        return self._process.num_threads()

    def memory(self) -> int:
        return self._process.memory_info().rss


@contextmanager
def nothing_kept(
    pid: int,
    serves: Callable[[], bool],
    idle: Callable[[], object],
    *,
    files: int = FILES,
    threads: int = THREADS,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[None]:
    """Compare what the process holds before and after; before and after it `serves`.

    `idle` asks it for something that costs nothing. A process that makes threads as it needs them, up
    to a number, may have made that many `threads`; one that loads what it needs, once, `memory_bytes`;
    and one with a pool of connections to its database has their `files` open.
    """
    assert serves()
    use = Use(pid)
    held_files, held_threads, held_memory = use.files(), use.threads(), use.memory()
    yield
    assert serves()
    for _ in range(LOOKS):
        # Sockets that were just closed are let go of within a turn of its loop.
        if use.files() <= held_files + files:
            break
        idle()
    assert use.files() <= held_files + files
    assert use.threads() <= held_threads + threads
    assert use.memory() <= held_memory + memory_bytes
