"""Whether records that come one by one would come together, if the event loop did not stand still."""

from typing import Final

# So many lone records in a row, and the next is written on a thread to see what comes meanwhile.
PROBE_EVERY: Final = 32
# With so many, of those written and those that came meanwhile, the others are written there as well.
COMPANY: Final = 4
# After so many of those writes it is looked whether batches gather without them by now.
WRITES_MAX: Final = 64


class Company:
    """Says on which side of the event loop a batch is better written.

    While a record is written on the loop, nothing else is taken up. One caller loses nothing by that,
    and is spared two hops between threads. But callers whose requests reach the loop one in each turn,
    as those of gRPC do, look just like it, and each would wait for the records of all others: a batch
    gathers only once the loop goes on meanwhile. So it is tried now and then.
    """

    def __init__(self) -> None:
        self._lone = 0
        self._writes = 0
        self._came = False

    def gathers(self, records: int) -> bool:
        """Say whether to write a batch of so many on a thread, so that the next one gathers."""
        if self._came:
            return True
        if records > 1:
            self._lone = 0
            return False
        self._lone += 1
        return self._lone > PROBE_EVERY

    def came(self, written: int, waiting: int) -> None:
        """Take note of how many records a write on a thread had, and how many wait at its end."""
        self._lone = 0
        self._writes = self._writes + 1 if self._came else 0
        self._came = written + waiting >= COMPANY and self._writes < WRITES_MAX
