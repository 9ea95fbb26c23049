"""What a site decided to prune, as its log of retention says: orders that each log's writer takes up.

An order counts until a hold was placed after it. A log that has begun to carry it out finishes all the
same: what its own minimum index says is gone.
"""

from datetime import datetime

from msgspec import Struct

from audit.publish import CHECKPOINT
from audit.records import AnyRecord, HoldChange, HoldRecord, PruneRecord, decode
from audit.source import LogSource
from audit.verify import read_checkpoint, read_entries, verify_tree


class PruneOrder(Struct, frozen=True, kw_only=True):
    """Prune a log below `index`; `newest` is the newest time of what goes, `decision` the record."""

    index: int
    newest: datetime
    decision: str


class PruneOrders:
    """Reads a site's log of retention, again only when it has grown; blocking."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._note = b""
        self._records: list[AnyRecord] = []

    def records(self) -> list[AnyRecord]:
        """Return every record of retention, the log verified whole; none where nothing was decided yet.

        Raises:
            VerificationError: if the log does not verify.
        """
        path = self._source.folder / CHECKPOINT
        if not path.is_file():
            return []
        checkpoint = read_checkpoint(self._source.folder, self._source.verifier)
        if checkpoint.note != self._note:
            verify_tree(self._source.folder, checkpoint)
            leaves = read_entries(self._source.folder, checkpoint.size)
            self._records = [decode(leaf) for leaf in leaves]
            self._note = checkpoint.note
        return self._records

    def order(self, origin: str) -> PruneOrder | None:
        """Return what is to be done with the log `origin`, or None; raises as `records`."""
        found = None
        for number, record in enumerate(self.records()):
            if isinstance(record, HoldRecord) and record.change is HoldChange.PLACED:
                found = None
            elif isinstance(record, PruneRecord) and record.log == origin:
                decision = f"{self._source.verifier.name}#{number}"
                found = PruneOrder(index=record.minimum_index, newest=record.newest, decision=decision)
        return found

    def decided(self, origin: str, index: int, decision: str) -> bool:
        """Say whether the record `decision` orders that `origin` is pruned below `index`."""
        log, _, number = decision.rpartition("#")
        records = self.records()
        if log != self._source.verifier.name or not number.isdecimal() or int(number) >= len(records):
            return False
        record = records[int(number)]
        return (
            isinstance(record, PruneRecord) and record.log == origin and record.minimum_index == index
        )
