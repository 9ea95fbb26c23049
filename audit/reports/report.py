"""Makes reports: reads logs that verify whole, and keeps what a kind is about, each with its proof."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from audit.checkpoint import Checkpoint
from audit.errors import ReportRefused
from audit.merkle import inclusion_proof, leaf_hash, verify_inclusion
from audit.minimum import UNPRUNED, MinimumIndex, read_minimum
from audit.published import FileNodes
from audit.records import AnyRecord, decode
from audit.reports.filters import Filters, WorkingHours
from audit.reports.kind import Kind
from audit.source import LogSource
from audit.verify import read_cosigned, read_entries, verify_tree

R = TypeVar("R", bound=AnyRecord)


class Entry(Struct, frozen=True, kw_only=True):
    """One record of the report: where it stands, its bytes, and the proof that it stands there."""

    origin: str
    index: int
    leaf: bytes
    proof: tuple[bytes, ...]
    record: AnyRecord


class Report(Struct, frozen=True, kw_only=True):
    """Entries in order of time, the checkpoints that cover them, and what was asked for.

    `pruned` is the minimum index of each log that does not begin with its first record any more.
    """

    kind: Kind
    site: str
    created: datetime
    filters: Filters
    hours: WorkingHours
    checkpoints: tuple[Checkpoint, ...]
    verifiers: tuple[str, ...]
    entries: tuple[Entry, ...]
    pruned: dict[str, MinimumIndex] = {}

    def of(self, type_: type[R]) -> list[tuple[Entry, R]]:
        """Return the entries of one type of record, each with its record."""
        return [(entry, entry.record) for entry in self.entries if isinstance(entry.record, type_)]

    @property
    def period(self) -> tuple[datetime, datetime]:
        """The period asked for; where it is open, what the records span."""
        times = [entry.record.time for entry in self.entries]
        since = self.filters.since or min(times, default=self.created)
        return since, self.filters.until or max(times, default=self.created)

    @property
    def complete(self) -> bool:
        """Whether it carries every record of its logs."""
        return len(self.entries) == sum(len(self.span(head)) for head in self.checkpoints)

    def span(self, checkpoint: Checkpoint) -> range:
        """Return which records of a log there are: those before were pruned."""
        return range(self.pruned.get(checkpoint.origin, UNPRUNED).index, checkpoint.size)


def build_report(
    kind: Kind,
    site: str,
    sources: Sequence[LogSource],
    filters: Filters,
    *,
    hours: WorkingHours | None = None,
    created: datetime | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Return the report over `sources`, each verified whole before anything is taken from it.

    It reaches as far as the logs' witnesses saw them, if they have any.
    `progress` is told how many of them are done.

    Raises:
        VerificationError: if a log does not verify; no report is made from such a log.
        ReportRefused: if the kind needs a filter that was not given.
    """
    if kind.needs_subject and filters.subject is None:
        raise ReportRefused(f"the report `{kind.name}` is about one subject: name it")
    entries: list[Entry] = []
    checkpoints: list[Checkpoint] = []
    pruned: dict[str, MinimumIndex] = {}
    for done, source in enumerate(sources):
        progress(done)
        checkpoint = read_cosigned(source.folder, source.verifier)
        minimum = read_minimum(source.folder, source.verifier)
        verify_tree(source.folder, checkpoint, minimum.index)
        checkpoints.append(checkpoint)
        if minimum.index:
            pruned[checkpoint.origin] = minimum
        entries += _entries(kind, source.folder, checkpoint, minimum.index, filters)
    entries.sort(key=order_of)
    return Report(
        kind=kind,
        site=site,
        created=created or datetime.now(UTC),
        filters=filters,
        hours=hours or WorkingHours(),
        checkpoints=tuple(checkpoints),
        verifiers=tuple(str(source.verifier) for source in sources),
        entries=tuple(entries),
        pruned=pruned,
    )


def order_of(entry: Entry) -> tuple[datetime, str, int]:
    """Return what a report's entries are in the order of."""
    return entry.record.time, entry.origin, entry.index


def _entries(
    kind: Kind, folder: Path, checkpoint: Checkpoint, minimum: int, filters: Filters
) -> Iterator[Entry]:
    nodes = FileNodes(folder, checkpoint.size)
    span = range(minimum, checkpoint.size)
    for index, leaf in enumerate(read_entries(folder, checkpoint.size, minimum), minimum):
        record = decode(leaf)
        if kind.selects(record, filters, index, span):
            proof = tuple(inclusion_proof(index, checkpoint.size, nodes.node))
            # The files are read a second time here: what goes into a report is proved again.
            verify_inclusion(leaf_hash(leaf), index, checkpoint.size, proof, checkpoint.root)
            yield Entry(origin=checkpoint.origin, index=index, leaf=leaf, proof=proof, record=record)
