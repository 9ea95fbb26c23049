"""How much was kept from leaving the process, by what it was."""

import threading
from collections import Counter
from enum import StrEnum


class What(StrEnum):
    """What was dropped."""

    MESSAGE = "message"
    """A log message that is not on the list: a library's, or one of ours that nobody listed."""
    ARGUMENT = "argument"
    """A part of a listed message that is not of its kind; the rest of the message was written."""
    OUTPUT = "output"
    """A line that something wrote to standard output or standard error by itself."""
    SAMPLE = "sample"
    """A sample of a metric that is not on the list, or with a label outside its closed set."""


class Dropped:
    """Counts; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[What] = Counter()

    def add(self, what: What, count: int = 1) -> None:
        """Count what was dropped."""
        with self._lock:
            self._counts[what] += count

    def counts(self) -> dict[What, int]:
        """Return how much was dropped of each since the process began."""
        with self._lock:
            return {what: self._counts[what] for what in What}
