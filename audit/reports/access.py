"""The access report: who asked what about whom, where it ran, under which policy.

It is built from published logs alone, and carries each record's inclusion proof, so that whoever gets
it can verify it offline.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from audit.checkpoint import Checkpoint
from audit.merkle import inclusion_proof, leaf_hash, verify_inclusion
from audit.note import NoteVerifier
from audit.published import FileNodes
from audit.records import (
    AnyRecord,
    DeviceRecord,
    Flag,
    JobRecord,
    Outcome,
    ReleaseRecord,
    RequestRecord,
    decode,
)
from audit.verify import read_checkpoint, read_entries, verify_tree


class LogSource(Struct, frozen=True, kw_only=True):
    """A log to report on: its folder and the key that verifies it."""

    folder: Path
    verifier: NoteVerifier


class Filters(Struct, frozen=True, kw_only=True):
    """What a report is limited to; `subject` is a pseudonym. None means all.

    `since` is the first moment of the period and `until` the first one behind it.
    """

    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None
    principal: str | None = None
    outcome: Outcome | None = None

    def choose(self, record: AnyRecord) -> bool:
        """Say whether a report with these filters shows `record`."""
        if self.since is not None and record.time < self.since:
            return False
        if self.until is not None and record.time >= self.until:
            return False
        wanted = (
            ("subject", self.subject),
            ("principal", self.principal),
            ("outcome", self.outcome),
        )
        return all(value is None or getattr(record, field, None) == value for field, value in wanted)


class Entry(Struct, frozen=True, kw_only=True):
    """One record of the report: where it stands, its bytes, and the proof that it stands there."""

    origin: str
    index: int
    leaf: bytes
    proof: tuple[bytes, ...]
    record: AnyRecord


class AccessReport(Struct, frozen=True, kw_only=True):
    """Entries in order of time, the checkpoints that cover them, and what they add up to."""

    site: str
    created: datetime
    filters: Filters
    checkpoints: tuple[Checkpoint, ...]
    verifiers: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def requests(self) -> list[Entry]:
        """The entries that are requests through a gateway."""
        return [entry for entry in self.entries if isinstance(entry.record, RequestRecord)]

    @property
    def events(self) -> list[Entry]:
        """The other entries: what happened to devices, releases, jobs and reports."""
        return [entry for entry in self.entries if not isinstance(entry.record, RequestRecord)]

    def count(self, outcome: Outcome) -> int:
        """How many requests ended so."""
        return sum(_request(entry).outcome is outcome for entry in self.requests)

    def flagged(self, flag: Flag) -> list[Entry]:
        """Return the requests that carry a flag."""
        return [entry for entry in self.requests if flag in _request(entry).flags]

    def refused(self) -> list[Entry]:
        """Return the requests that were refused."""
        return [e for e in self.requests if _request(e).outcome is Outcome.REFUSED]

    def by_placement(self) -> list[tuple[str, int]]:
        """Count served requests by where they ran, most first."""
        return Counter(
            _request(entry).placement or "none"
            for entry in self.requests
            if _request(entry).outcome is Outcome.SERVED and _request(entry).data_class
        ).most_common()

    def by_policy(self) -> list[tuple[str, int]]:
        """Count requests by the policies that determined them, most first."""
        return Counter(
            policy for entry in self.requests for policy in _request(entry).policies
        ).most_common()

    def residency(self) -> list[tuple[str, str, int]]:
        """Count served requests by the data's jurisdiction and where they ran."""
        counted = Counter(
            (_request(entry).jurisdiction or "none", _request(entry).placement or "none")
            for entry in self.requests
            if _request(entry).outcome is Outcome.SERVED and _request(entry).data_class
        )
        return [(home, place, number) for (home, place), number in sorted(counted.items())]


def build_access_report(
    site: str, sources: Sequence[LogSource], filters: Filters, created: datetime | None = None
) -> AccessReport:
    """Return the report over `sources`, each verified whole before anything is taken from it.

    Raises:
        VerificationError: if a log does not verify; no report is made from such a log.
    """
    entries: list[Entry] = []
    checkpoints: list[Checkpoint] = []
    for source in sources:
        checkpoint = read_checkpoint(source.folder, source.verifier)
        verify_tree(source.folder, checkpoint)
        checkpoints.append(checkpoint)
        entries += _entries(source.folder, checkpoint, filters)
    entries.sort(key=lambda entry: (entry.record.time, entry.origin, entry.index))
    return AccessReport(
        site=site,
        created=created or datetime.now(UTC),
        filters=filters,
        checkpoints=tuple(checkpoints),
        verifiers=tuple(str(source.verifier) for source in sources),
        entries=tuple(entries),
    )


def _entries(folder: Path, checkpoint: Checkpoint, filters: Filters) -> Iterator[Entry]:
    nodes = FileNodes(folder, checkpoint.size)
    for index, leaf in enumerate(read_entries(folder, checkpoint.size)):
        record = decode(leaf)
        if filters.choose(record):
            proof = tuple(inclusion_proof(index, checkpoint.size, nodes.node))
            # The files are read a second time here: what goes into a report is proved again.
            verify_inclusion(leaf_hash(leaf), index, checkpoint.size, proof, checkpoint.root)
            yield Entry(origin=checkpoint.origin, index=index, leaf=leaf, proof=proof, record=record)


def describe(record: AnyRecord) -> str:
    """Return what a record is about, in a few words."""
    match record:
        case RequestRecord():
            return record.action.value
        case DeviceRecord():
            return f"device {record.change.value}"
        case ReleaseRecord():
            return "release published"
        case JobRecord():
            return f"federated {record.kind} {record.state.value}"
        case _:
            return "report"


def _request(entry: Entry) -> RequestRecord:
    if not isinstance(entry.record, RequestRecord):
        message = "only requests are asked for"
        raise TypeError(message)
    return entry.record
