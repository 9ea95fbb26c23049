"""Sealed answers in this process: bounded in bytes, least recently used first to go."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

# What CPython holds for an entry besides its bytes: two bytes objects, a tuple, a float, a slot.
ENTRY_BYTES: Final = 300


class MemoryBackend:
    """Keeps values up to `limit_bytes` altogether, each for `lifetime_s`."""

    def __init__(
        self, *, limit_bytes: int, lifetime_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_bytes = limit_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much is held, in bytes."""
        return self._size_bytes

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, or None where there is none any more."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, value = entry
        if self._clock() >= expires:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep `value`, and let go of what was not asked for longest; one too large is not kept."""
        if key in self._entries:
            self._drop(key)
        size = _size(key, value)
        if size > self._limit_bytes:
            return
        while self._size_bytes + size > self._limit_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = self._clock() + self._lifetime_s, value
        self._size_bytes += size

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._size_bytes = 0

    def _drop(self, key: bytes) -> None:
        _, value = self._entries.pop(key)
        self._size_bytes -= _size(key, value)


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
