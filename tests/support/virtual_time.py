"""An event loop whose time stands still while anything can run, and then jumps to the next timer.

Interleavings are the loop's own and every run of a test is the same; a program that waits for what will
never come is told so instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any


class NothingToWaitFor(Exception):
    """Raised when everything waits and no timer is set."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`on_quiet` is called whenever nothing is left to run, before time moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_quiet: Callable[[], None] = lambda: None
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self._loop.on_quiet()
            if timeout is None:
                raise NothingToWaitFor
            self._loop.now += timeout
        return super().select(0)


class VirtualExecutor(Executor):
    """Threads whose work takes as long as `duration_s` says and ends when the loop gets there."""

    def __init__(self, loop: VirtualTimeLoop, duration_s: Callable[[], float]) -> None:
        self._loop = loop
        self._duration_s = duration_s
        self._skew = 0.0
        self.started: Callable[[Any], None] = lambda _: None
        self.running = 0

    def clock(self) -> float:
        """The time as the work sees it: it begins when it was submitted."""
        return self._loop.now - self._skew

    @property
    def at_work(self) -> bool:
        """Whether its work is what runs now, and has not taken its time yet."""
        return self._skew > 0

    def work(self) -> None:
        """Called by what is run, where its time passes."""
        self._skew = 0.0

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        self.running += 1
        self.started(*args)
        duration_s = self._duration_s()

        def finish() -> None:
            self._skew = duration_s
            try:
                future.set_result(function(*args, **kwargs))
            finally:
                self._skew = 0.0
                self.running -= 1

        self._loop.call_later(duration_s, finish)
        return future


def run_virtually(main: Callable[[VirtualTimeLoop], Coroutine[Any, Any, None]]) -> None:
    """Run `main` to its end on a loop of its own."""
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()
