"""What can go wrong in the gateway."""

import logging

from audit.records import Problem

logger = logging.getLogger(__name__)


class GatewayError(Exception):
    """Root of this package's errors."""


class RegistryError(GatewayError):
    """Raised when a device registry is unsigned, forged, malformed or older than the one in use."""


class Refusal(GatewayError):
    """Raised by a stage when the request ends here; becomes a problem document and a record.

    `detail` is shown to the caller: it says what was wrong and what to do, and never quotes what
    the caller sent. `policies` and `citations` are set when a policy refused, `allow`
    names the methods of a path that was asked by another.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        policies: tuple[str, ...] = (),
        citations: tuple[str, ...] = (),
        retry_after_s: int | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.policies = policies
        self.citations = citations
        self.retry_after_s = retry_after_s
        self.allow = allow


class DoorFull(Refusal):
    """Raised at the door where a model has as many requests under way as it can answer in time.

    Nothing of the request was looked at, so all that one caller asks of the model in that moment have
    one record.
    """


class NotBegun(Refusal):
    """Raised when a node did not begin, or left nothing behind: another one may be asked."""


class Lost(NotBegun):
    """Raised when a node broke off in a run that leaves nothing behind.

    Only one other node is asked: a request that brings nodes down must not go round all of them.
    """


class Unanswered(Refusal):
    """Raised where a run leaves nothing behind and no answer came: time ran out, or a device left.

    Whoever waited is not sent elsewhere. Work, which nobody waits for, may be run again.
    """


def unforeseen(error: Exception) -> Refusal:
    """Return the refusal for a defect of ours, and log where it was.

    The error's message may quote content, so only its type and place are logged.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    logger.error(
        "unforeseen %s at %s:%s",
        type(error),
        place.tb_frame.f_code if place else None,
        place.tb_lineno if place else 0,
    )
    return Refusal(Problem.INTERNAL, "The gateway failed; the request was recorded as failed.")
