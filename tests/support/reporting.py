"""What makes reports over one log, as `bedside up` gives it to a coordinator."""

from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.reports import LogSource
from audit.reports.making import ReportMaker


def report_maker(site: str, log_folder: Path, log: Log) -> ReportMaker:
    """Return what makes reports over `log`, and records each in a log beside it."""
    key, folder = Ed25519PrivateKey.generate(), log_folder.with_name("reports")
    made = LogSource(folder=folder, verifier=NoteVerifier(f"{site}/reports", key.public_key()))

    def sources() -> list[LogSource]:
        known = [made] if (folder / "checkpoint").exists() else []
        return [LogSource(folder=log_folder, verifier=log.verifier), *known]

    def open_log():
        return Log.open(folder, origin=made.verifier.name, key=key)

    return ReportMaker(site, sources, open_log, made, uuid4)
