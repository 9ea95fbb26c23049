"""The two ways in which the kernel makes blocks durable by itself: past its cache, or through it.

Past the cache less is to be done, and the processor that the disk interrupts does the rest. Through it,
the rest is done on the processor of whoever wrote. Where another process computes on one of them, that
way takes milliseconds, and the other as long as ever; so the quicker one is gone.
"""

import errno
import time
from collections.abc import Callable
from typing import Final, Self

from audit.kernel_write import KernelWrite
from audit.quicker import Quicker
from audit.segment import Blocks, write_through

# What a file system says that takes no direct writes of such blocks after all.
_NO_SUCH_WRITE: Final = (errno.EINVAL, errno.EOPNOTSUPP)


class KernelWays:
    """Has the kernel make blocks durable, one append at a time, on one event loop."""

    def __init__(self, done: Callable[[OSError | None], None], clock: Callable[[], float]) -> None:
        """Use `open`."""
        self._done = done
        self._clock = clock
        self._quicker = Quicker(clock)
        self._takes_direct = True
        self._blocks: Blocks | None = None
        # Whether what is under way goes past the cache, and whether its time counts.
        self._direct = False
        self._counts = False
        self._began = 0.0
        self._kernel: KernelWrite

    @classmethod
    def open(
        cls, done: Callable[[OSError | None], None], clock: Callable[[], float] = time.perf_counter
    ) -> Self | None:
        """Return one that calls `done` with what went wrong, if anything, after each append.

        None where the kernel does no such thing, or a sandbox forbids it.
        """
        ways = cls(done, clock)
        kernel = KernelWrite.open(ways._ended)
        if kernel is None:
            return None
        ways._kernel = kernel
        return ways

    def start(self, blocks: Blocks) -> bool:
        """Begin to make `blocks` durable; False if the kernel cannot, and nothing is under way.

        Raises:
            OSError: if they cannot be written through the cache.
        """
        self._blocks, self._began = blocks, self._clock()
        self._counts = self._takes_direct and blocks.direct is not None
        if blocks.direct is not None and self._takes_direct and self._quicker.first:
            self._direct = True
            if self._kernel.start(blocks.direct, blocks.data, blocks.offset):
                return True
            self._takes_direct = self._counts = False
        return self._start_through(blocks)

    def close(self) -> None:
        """Let go of it, once what was begun has ended; that is waited for, and told as ever."""
        self._kernel.close()

    def _start_through(self, blocks: Blocks) -> bool:
        self._direct = False
        write_through(blocks)
        return self._kernel.sync(blocks.file)

    def _ended(self, error: OSError | None) -> None:
        if self._direct and self._kernel.waits:
            # Each would stop the loop until the disk is done.
            self._takes_direct = False
        if self._direct and error is not None and error.errno in _NO_SUCH_WRITE:
            self._takes_direct = self._counts = False
            error = self._again()
            if error is None:
                return
        if error is None and self._counts:
            self._quicker.took(self._clock() - self._began)
        self._done(error)

    def _again(self) -> OSError | None:
        """Write through the cache what the file system did not take past it; return why not, if so."""
        if self._blocks is None:
            message = "what has ended was begun"
            raise AssertionError(message)
        try:
            begun = self._start_through(self._blocks)
        except OSError as error:
            return error
        return None if begun else OSError(errno.EIO, "the kernel does not sync what it wrote")
