"""What can go wrong in `console`."""


class ConsoleError(Exception):
    """Root of this package's errors."""


class StoreError(ConsoleError):
    """Raised when the console's own database cannot be used; nothing of it is quoted."""


class AccountError(ConsoleError):
    """Raised when an account cannot be added or changed as asked; the message says why."""


class FormInvalid(ConsoleError):
    """Raised when a form is malformed; the message names the `field` and never its content."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Busy(ConsoleError):
    """Raised when as much long work is under way as the console does at a time."""
