"""How long a batch gathers: while what the event loop read in this turn is still coming."""

from typing import Final

TURNS_MAX: Final = 4


class Gathering:
    """Says whether the next batch may still grow, without any time in which nothing is done.

    The event loop reads every connection that is readable, then takes up what it read. A batch that
    runs in the turn in which its first request came, or in which the one before it ended, leaves out
    those that have just been read; on a thread they then wait for the whole run of a batch of few.
    So it stands back while turns bring more, `TURNS_MAX` of them; unless the last batch was a lone
    request, whose caller would wait for nobody. Where requests come one by one, each runs at once.
    """

    __slots__ = ("_alone", "_company", "_ran", "_seen", "_turns")

    def __init__(self) -> None:
        self._alone = self._company = False
        self._ran = 0
        self._seen = 0
        self._turns = 0

    def runs_at_once(self) -> bool:
        """Say whether a request that comes now runs at once.

        It does if the last one ran alone, and no other came with it.
        """
        self._ran += self._alone
        return self._alone

    def goes_on(self, waiting: int, most: int) -> bool:
        """Say whether to look again in the next turn; `waiting` of `most` requests are there."""
        if self._company and self._turns < TURNS_MAX and self._seen < waiting < most:
            self._seen = waiting
            self._turns += 1
            return True
        together, self._ran = waiting + self._ran, 0
        self._company, self._alone = together > 1, together == 1
        self._seen = self._turns = 0
        return False
