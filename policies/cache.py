"""A bounded memory of answers that are costly to work out, least recently used first to go."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """At most `capacity` values by key; both operations take constant time.

    Threads may share one: each step is one atomic operation of a dictionary, and losing a race
    costs no more than working a value out again.
    """

    __slots__ = ("_capacity", "_values")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a cache holds at least 1 value, not {capacity}")
        self._capacity = capacity
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """Return the value of `key`, or None."""
        value = self._values.get(key)
        if value is not None:
            try:
                self._values.move_to_end(key)
            except KeyError:  # another thread dropped it since; the value is still right
                return value
        return value

    def put(self, key: K, value: V) -> None:
        """Remember `value`, dropping the least recently used beyond the capacity."""
        self._values[key] = value
        while len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget `key`."""
        self._values.pop(key, None)
