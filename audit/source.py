"""A published log as its readers know it."""

from pathlib import Path

from msgspec import Struct

from audit.note import NoteVerifier


class LogSource(Struct, frozen=True, kw_only=True):
    """A log's folder and the key that verifies its checkpoints."""

    folder: Path
    verifier: NoteVerifier
