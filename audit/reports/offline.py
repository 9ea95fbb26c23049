"""Verifies a report's JSON form offline, against the public keys of the logs it draws on.

Each record is proved to stand in its log and to be what the report shows of it. That none is missing is
proved where the report has no filters; under filters, only the whole log can show that.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import VerificationError
from audit.merkle import leaf_hash, verify_inclusion
from audit.note import NoteVerifier
from audit.records import decode
from audit.reports.access import Filters
from audit.reports.write import FORMAT


class ReportVerification(Struct, frozen=True, kw_only=True):
    """What was verified: `entries` records of the logs named."""

    entries: int
    origins: tuple[str, ...]


class _Log(Struct):
    origin: str
    verifier: str
    size: int
    root: str
    checkpoint: str


class _Entry(Struct):
    origin: str
    index: int
    record: dict[str, Any]
    leaf: str
    proof: list[str]


class _Report(Struct):
    format: str
    filters: Filters
    logs: list[_Log]
    entries: list[_Entry]


def verify_report(path: Path, verifiers: Iterable[NoteVerifier]) -> ReportVerification:
    """Check every checkpoint's signature and every record's proof in a report's JSON form.

    Raises:
        VerificationError: naming the record or log that does not check.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=_Report)
    except (msgspec.MsgspecError, OSError) as error:
        raise VerificationError(f"{path} is not a report in JSON form") from error
    if report.format != FORMAT:
        raise VerificationError(f"{path} has another format than {FORMAT}")
    known = {verifier.name: verifier for verifier in verifiers}
    checkpoints: dict[str, Checkpoint] = {}
    for log in report.logs:
        verifier = known.get(log.origin)
        if verifier is None:
            raise VerificationError("the report draws on a log whose key was not given")
        checkpoints[log.origin] = _verify_log(log, verifier)
    shown: dict[str, set[int]] = {origin: set() for origin in checkpoints}
    for entry in report.entries:
        _verify_entry(entry, checkpoints, report.filters)
        if entry.index in shown[entry.origin]:
            raise VerificationError(f"record {entry.index} of {entry.origin} is there twice")
        shown[entry.origin].add(entry.index)
    if report.filters == Filters():
        for origin, indices in shown.items():
            missing = next((n for n in range(checkpoints[origin].size) if n not in indices), None)
            if missing is not None:
                raise VerificationError(f"record {missing} of {origin} is missing from the report")
    return ReportVerification(entries=len(report.entries), origins=tuple(checkpoints))


def _verify_log(log: _Log, verifier: NoteVerifier) -> Checkpoint:
    checkpoint = open_checkpoint(log.checkpoint.encode(), [verifier])
    shown = (log.origin, log.verifier, log.size, log.root)
    if shown != (checkpoint.origin, str(verifier), checkpoint.size, checkpoint.root.hex()):
        raise VerificationError(f"what the report says of {verifier.name} is not what was signed")
    return checkpoint


def _verify_entry(entry: _Entry, checkpoints: dict[str, Checkpoint], filters: Filters) -> None:
    checkpoint = checkpoints.get(entry.origin)
    if checkpoint is None:
        raise VerificationError(f"record {entry.index} is of a log that the report does not name")
    try:
        leaf = base64.b64decode(entry.leaf, validate=True)
        proof = [base64.b64decode(hash_, validate=True) for hash_ in entry.proof]
    except ValueError as error:
        raise VerificationError(f"record {entry.index}: its proof is not base64") from error
    verify_inclusion(leaf_hash(leaf), entry.index, checkpoint.size, proof, checkpoint.root)
    try:
        record = decode(leaf)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"record {entry.index} is not a valid record") from error
    # What people read must be what the proof covers.
    if msgspec.json.decode(leaf) != entry.record:
        raise VerificationError(f"record {entry.index} was changed in the report")
    if not filters.choose(record):
        raise VerificationError(f"record {entry.index} lies outside the report's filters")
