"""Legal holds: what must not be pruned, however old it is, until the hold is released.

A hold is a record in the site's log of retention, and its release another under the same `id`. What it
cannot tell, it holds: a review names no subject and no model, so that every hold in whose period it
lies keeps it.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from audit.records import AnyRecord, HoldChange, HoldRecord, HoldScope, ReviewRecord


class Hold(Struct, frozen=True, kw_only=True):
    """A hold that was placed and not released, and who placed it when."""

    id: UUID
    reference: str
    scope: HoldScope
    principal: str
    placed: datetime

    def holds(self, origin: str, record: AnyRecord) -> bool:
        """Say whether `record`, of the log `origin`, must stay."""
        scope = self.scope
        if scope.logs and origin not in scope.logs:
            return False
        if scope.since is not None and record.time < scope.since:
            return False
        if scope.until is not None and record.time >= scope.until:
            return False
        if isinstance(record, ReviewRecord):
            return True
        wanted = (
            ("subject", scope.subjects),
            ("model", scope.models),
            ("principal", scope.principals),
        )
        return all(not names or getattr(record, field, None) in names for field, names in wanted)


def active_holds(records: Iterable[AnyRecord]) -> list[Hold]:
    """Return the holds in force after `records` of the log of retention, oldest first."""
    holds: dict[UUID, Hold] = {}
    for record in records:
        if not isinstance(record, HoldRecord):
            continue
        if record.change is HoldChange.RELEASED:
            holds.pop(record.id, None)
        else:
            holds[record.id] = Hold(
                id=record.id,
                reference=record.reference,
                scope=record.scope,
                principal=record.principal,
                placed=record.time,
            )
    return list(holds.values())
