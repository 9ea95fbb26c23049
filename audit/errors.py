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


class IndexUnavailable(AuditError):
    """Raised when the search index cannot be opened, read or written."""


class IndexBusy(IndexUnavailable):
    """Raised when another process writes the search index at this moment; trying again helps."""


class IndexDiffers(AuditError):
    """Raised when the search index does not say what the log says; the message names the record."""


class SearchInvalid(AuditError):
    """Raised when a search or a page of it is malformed."""


class ReviewRefused(AuditError):
    """Raised when a record cannot be reviewed, or not by this person; the message says why."""


class WitnessUnavailable(AuditError):
    """Raised when a witness cannot remember what it would cosign, or its memory is gone."""


class FollowerLost(AuditError):
    """Raised when the place up to which a log was followed is not one of that log."""


class ExportBusy(AuditError):
    """Raised when another process exports the same logs already."""


class ReportRefused(AuditError):
    """Raised when a report cannot be made as it was asked for; the message says what is missing."""


class RecordsPruned(AuditError):
    """Raised when records are asked for that stand below the log's minimum index."""


class PruneRefused(AuditError):
    """Raised when a log must not be pruned, or a hold not be placed or released; says why."""
