"""How long one request may have something computed for it beside its model."""

import time
from typing import Final

from inference_node.errors import DeadlineExceeded, InputInvalid

COMPUTING_MAX_S: Final = 1.0
"""Seconds of a core; what may be asked for takes half of that, but for parameters of odd sizes."""


class Allowance:
    """What is left of a request's time; the thread that computes for it asks now and then.

    `deadline` is a `time.monotonic()` time.
    """

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._began_s = 0.0
        self._given_up = False

    def give_up(self) -> None:
        """Have what still computes end at its next check: nobody waits for it any more."""
        self._given_up = True

    def begin(self) -> None:
        """Count the time of the calling thread's core from here.

        Raises:
            DeadlineExceeded: if the deadline passed.
        """
        self._began_s = time.thread_time()
        self.check_deadline()

    def check(self) -> None:
        """Let the thread that began go on.

        Raises:
            DeadlineExceeded: if the deadline passed.
            InputInvalid: if it has computed for `COMPUTING_MAX_S`.
        """
        self.check_deadline()
        if time.thread_time() - self._began_s > COMPUTING_MAX_S:
            raise InputInvalid(
                f"computing what is asked for takes more than {COMPUTING_MAX_S:g} s; ask for fewer "
                "quantiles or rows at a time"
            )

    def check_deadline(self) -> None:
        """See that the answer is still waited for.

        Raises:
            DeadlineExceeded: if it is not.
        """
        if self._given_up or (self._deadline is not None and self._deadline < time.monotonic()):
            raise DeadlineExceeded("the deadline passed before all that is asked for was computed")
