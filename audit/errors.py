"""What can go wrong in `audit`."""


class AuditError(Exception):
    """Root of this package's errors."""


class PseudonymKeyError(AuditError):
    """Raised when a pseudonym key has the wrong size."""


class LogUnavailable(AuditError):
    """Raised to every waiting writer when records cannot be made durable."""


class LogCorrupt(AuditError):
    """Raised when stored log data contradicts itself or a signed checkpoint."""


class LogBusy(AuditError):
    """Raised on opening a log that another writer holds."""


class VerificationError(AuditError):
    """Raised when a signature, a proof or a record does not verify; the message names which."""
