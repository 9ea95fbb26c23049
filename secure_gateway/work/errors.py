"""What can go wrong where work is kept."""

from secure_gateway.errors import GatewayError


class WorkStoreError(GatewayError):
    """Raised when the database of queued work cannot be used; nothing of it is quoted."""


class WorkFull(GatewayError):
    """Raised when the limits leave no room; the message names the limit."""
