"""What can go wrong where work is kept."""

from typing import Final

from audit.records import Problem
from secure_gateway.errors import GatewayError, Refusal

RETRY_AFTER_S: Final = 5


class WorkStoreError(GatewayError):
    """Raised when the database of queued work cannot be used; nothing of it is quoted."""


class WorkFull(GatewayError):
    """Raised when the limits leave no room; the message names the limit."""


def unavailable() -> Refusal:
    """Return the refusal of what cannot be done while the database cannot be used."""
    return Refusal(
        Problem.WORK_UNAVAILABLE,
        "The database of work cannot be used now; try again.",
        retry_after_s=RETRY_AFTER_S,
    )
