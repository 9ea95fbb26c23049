"""Outlier ejection: a node that keeps failing is left alone for a while, whatever its probes say.

Active probes find a node that is down; they do not find one that answers probes and fails at work. So
each node's own requests are watched too: several failures in a row eject it, for twice as long each
time, and one success afterwards brings it back for good.

That a caller's own deadline passed says little: whoever asks for much in no time must not be able to
have a node left alone. It says something of a node that had about a second and answered nobody in it.
Of requests that waited at the same time one counts, so that ejecting a node so takes three seconds in
which all that it is sent by anybody goes unanswered.

That a node of Bedside's own could not run a request says as little: it may be the input's fault, and
whoever knows such an input must not be able to have a sound node left alone. It says something of a
node that could run none for three seconds, of three or more, of two or more callers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

FAILURES_MAX: Final = 3
# Of a caller's second, what is left for the node.
SILENCE_S: Final = 0.9
BROKEN_S: Final = 3.0
FIRST_EJECTION_S: Final = 1.0
LONGEST_EJECTION_S: Final = 30.0


# A timer may be a little early by the clock that it was set by.
_EARLY_S: Final = 0.01


class Asked(NamedTuple):
    """How things stood with a node when a request with a deadline was sent to it."""

    at: float
    deadline: float
    answers: int

    @property
    def in_time(self) -> bool:
        """Whether there was time left to send it at all."""
        return self.at < self.deadline


@dataclass
class _Unrun:
    """What a node could not run since it ran something."""

    since: float
    caller: str | None
    count: int = 0
    several: bool = False
    """Whether it was more than one caller's."""


class NodeHealth:
    """What a node's last requests say of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.failures = 0
        """How often it failed since the gateway started."""
        self._answers = 0
        self._silent_until = 0.0
        self._failures = 0
        self._unrun: _Unrun | None = None
        self._ejections = 0
        self._until = 0.0

    @property
    def ejected(self) -> bool:
        """Whether the node should be left alone now."""
        return self._ejections > 0 and self._clock() < self._until

    def succeeded(self) -> None:
        """Take note of a request that the node answered, be it with an error of the caller's."""
        self._answers += 1
        if self._failures or self._ejections:
            self._failures = self._ejections = 0
        self._unrun = None

    def asked(self, deadline: float) -> Asked:
        """Return how things stand as a request is sent; `deadline` is a time of the clock."""
        return Asked(self._clock(), deadline, self._answers)

    def answered(self) -> None:
        """Take note that the node said something, which need not make it a sound one."""
        self._answers += 1

    def silent(self, asked: Asked | None) -> None:
        """Take note of a request that was not answered in time; `asked` is None if it had no deadline.

        Past the time that the site gives a node it has failed. Past a caller's own deadline it has
        only if it was silent altogether, as the module says.
        """
        now = self._clock()
        if asked is None or now < asked.deadline - _EARLY_S:
            self.failed()
        elif (
            now - asked.at >= SILENCE_S
            and asked.answers == self._answers
            and asked.at >= self._silent_until
        ):
            self._silent_until = now
            self.failed()

    def left(self, asked: Asked | None) -> None:
        """Take note of a request whose caller left, which gRPC makes of one whose deadline passed."""
        if asked is not None and self._clock() >= asked.deadline - _EARLY_S:
            self.silent(asked)

    def could_not_run(self, caller: str | None) -> None:
        """Take note of a request of `caller` that the node says it could not run."""
        now = self._clock()
        unrun = self._unrun
        if unrun is None:
            unrun = self._unrun = _Unrun(now, caller)
        unrun.count += 1
        unrun.several = unrun.several or caller != unrun.caller
        broken = unrun.several and unrun.count >= FAILURES_MAX and now - unrun.since >= BROKEN_S
        if broken and not self.ejected:
            self.failures += 1
            self._eject()

    def failed(self) -> None:
        """Take note of a request that the node did not answer."""
        self.failures += 1
        self._failures += 1
        # After an ejection one more failure is enough: the node is on trial.
        if self._failures >= FAILURES_MAX or (self._ejections and not self.ejected):
            self._eject()

    def _eject(self) -> None:
        time_out = FIRST_EJECTION_S * 2 ** min(self._ejections, 10)
        self._until = self._clock() + min(time_out, LONGEST_EJECTION_S)
        self._ejections += 1
        self._failures = 0
