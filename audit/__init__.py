"""Records, the transparency log that holds them, proofs, reports and their verification."""

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import WitnessKey
from audit.cosigning import WitnessEntry, Witnesses
from audit.errors import (
    AuditError,
    LogBusy,
    LogCorrupt,
    LogUnavailable,
    PseudonymKeyError,
    VerificationError,
)
from audit.log import Log
from audit.note import NoteSigner, NoteVerifier
from audit.pseudonyms import Pseudonymizer
from audit.serve import serve_log

__all__ = [
    "AuditError",
    "Checkpoint",
    "Log",
    "LogBusy",
    "LogCorrupt",
    "LogUnavailable",
    "NoteSigner",
    "NoteVerifier",
    "PseudonymKeyError",
    "Pseudonymizer",
    "VerificationError",
    "WitnessEntry",
    "WitnessKey",
    "Witnesses",
    "open_checkpoint",
    "serve_log",
]
