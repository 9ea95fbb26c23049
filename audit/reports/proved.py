"""Verifies the JSON form of a report, against the public keys of the logs it draws on.

Each record is proved to stand in its log; what the report shows is made again from the records and must
be the same. That no record is missing is proved where the report carries whole logs; otherwise only the
whole log can show that the site left none out when it made the report.
"""

import base64
import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import VerificationError
from audit.merkle import leaf_hash, verify_inclusion
from audit.minimum import UNPRUNED, MinimumIndex, open_minimum
from audit.note import NoteVerifier
from audit.records import decode
from audit.reports.document import FORMAT, MADE_BY, show, to_json
from audit.reports.filters import Filters, WorkingHours
from audit.reports.kinds import KINDS
from audit.reports.report import Entry, Report, order_of


class LogHead(Struct):
    """A log as a report names it; `minimum_index` is the note that says it was pruned."""

    origin: str
    verifier: str
    size: int
    root: str
    checkpoint: str
    minimum_index: str = ""


class ProvedEntry(Struct):
    """A record as a report carries it."""

    origin: str
    index: int
    record: dict[str, Any]
    leaf: str
    proof: list[str]


class _Report(Struct):
    format: str
    made_by: str
    kind: str
    site: str
    created: datetime
    filters: Filters
    hours: WorkingHours
    logs: list[LogHead]
    entries: list[ProvedEntry]


def verify_json(data: bytes, verifiers: Sequence[NoteVerifier], name: str) -> tuple[Report, bool]:
    """Return the report in `data`, and whether what it shows was made again and found the same.

    Every signature and proof is verified. Another version of Bedside may word what it shows otherwise:
    what that version made is not made again.

    Raises:
        VerificationError: naming the record or log that does not check.
    """
    try:
        stated = msgspec.json.decode(data, type=_Report)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"{name} is not a report in JSON form") from error
    if stated.format != FORMAT:
        raise VerificationError(f"{name} has another format than {FORMAT}")
    kind = KINDS.get(stated.kind)
    if kind is None:
        raise VerificationError(f"{name} is of a kind that this version does not know")
    checkpoints = {log.origin: verify_head(log, verifiers) for log in stated.logs}
    if len(checkpoints) != len(stated.logs):
        raise VerificationError("the report names a log twice")
    pruned = {log.origin: verify_pruned(log, verifiers) for log in stated.logs if log.minimum_index}
    entries = [verify_entry(entry, checkpoints) for entry in stated.entries]
    for entry in entries:
        minimum = pruned.get(entry.origin, UNPRUNED)
        span = range(minimum.index, checkpoints[entry.origin].size)
        if not kind.selects(entry.record, stated.filters, entry.index, span):
            raise VerificationError(f"record {entry.index} lies outside the report's filters")
    _check_numbers(entries)
    report = Report(
        kind=kind,
        site=stated.site,
        created=stated.created,
        filters=stated.filters,
        hours=stated.hours,
        checkpoints=tuple(checkpoints.values()),
        verifiers=tuple(log.verifier for log in stated.logs),
        entries=tuple(entries),
        pruned=pruned,
    )
    if kind.name == "access" and stated.filters == Filters():
        _check_complete(report)
    if stated.made_by != MADE_BY:
        return report, False
    if to_json(report, show(report)) != data:
        raise VerificationError("what the report shows is not what follows from its records")
    return report, True


def verify_head(log: LogHead, verifiers: Iterable[NoteVerifier]) -> Checkpoint:
    """Return the checkpoint of a log that a report names, its signature verified.

    Raises:
        VerificationError: if its key was not given, or it is not what was signed.
    """
    verifier = next((known for known in verifiers if known.name == log.origin), None)
    if verifier is None:
        raise VerificationError("the report draws on a log whose key was not given")
    checkpoint = open_checkpoint(log.checkpoint.encode(), [verifier])
    shown = (log.origin, log.verifier, log.size, log.root)
    if shown != (checkpoint.origin, str(verifier), checkpoint.size, checkpoint.root.hex()):
        raise VerificationError(f"what the report says of {verifier.name} is not what was signed")
    return checkpoint


def verify_pruned(log: LogHead, verifiers: Iterable[NoteVerifier]) -> MinimumIndex:
    """Return the minimum index of a log that a report names, its signature verified.

    Raises:
        VerificationError: if its key was not given, or it is not what was signed.
    """
    verifier = next((known for known in verifiers if known.name == log.origin), None)
    if verifier is None:
        raise VerificationError(f"no key was given for the log {log.origin}")
    return open_minimum(log.minimum_index.encode(), verifier)


def verify_entry(entry: ProvedEntry, checkpoints: dict[str, Checkpoint]) -> Entry:
    """Return a record that a report carries, its inclusion proof verified.

    Raises:
        VerificationError: if it is not what its log commits to at that place.
    """
    checkpoint = checkpoints.get(entry.origin)
    if checkpoint is None:
        raise VerificationError(f"record {entry.index} is of a log that the report does not name")
    try:
        leaf = base64.b64decode(entry.leaf, validate=True)
        proof = tuple(base64.b64decode(hash_, validate=True) for hash_ in entry.proof)
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
    return Entry(origin=entry.origin, index=entry.index, leaf=leaf, proof=proof, record=record)


def _check_numbers(entries: Sequence[Entry]) -> None:
    seen: set[tuple[str, int]] = set()
    for entry in entries:
        if (entry.origin, entry.index) in seen:
            raise VerificationError(f"record {entry.index} of {entry.origin} is there twice")
        seen.add((entry.origin, entry.index))
    if any(order_of(one) > order_of(other) for one, other in itertools.pairwise(entries)):
        raise VerificationError("the report's records are not in order of time")


def _check_complete(report: Report) -> None:
    shown: dict[str, set[int]] = {checkpoint.origin: set() for checkpoint in report.checkpoints}
    for entry in report.entries:
        shown[entry.origin].add(entry.index)
    for checkpoint in report.checkpoints:
        indices = shown[checkpoint.origin]
        missing = next((n for n in report.span(checkpoint) if n not in indices), None)
        if missing is not None:
            raise VerificationError(
                f"record {missing} of {checkpoint.origin} is missing from the report"
            )
