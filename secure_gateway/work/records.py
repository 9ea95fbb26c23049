"""What the log says of the ends of work that its caller brings about: fetched, and cancelled."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import structs

from audit.records import Outcome, RequestRecord
from policies import Principal
from secure_gateway.exchange import Call


def fetched(run: RequestRecord, principal: Principal, call: Call, work: UUID) -> RequestRecord:
    """Return the record of a fetch: whose data went to whom, as the run's record has it."""
    return structs.replace(run, **_asked(principal, call, work))


def cancelled(principal: Principal, call: Call, work: UUID) -> RequestRecord:
    """Return the record of a cancellation."""
    return RequestRecord(outcome=Outcome.SERVED, status=200, **_asked(principal, call, work))


def _asked(principal: Principal, call: Call, work: UUID) -> dict[str, Any]:
    """Return who asked for what, by the token of this very request."""
    return {
        "time": datetime.now(UTC),
        "id": work,
        "action": call.action,
        "principal": principal.id,
        "roles": tuple(sorted(principal.roles)),
        "caller_kind": principal.kind,
        "caller_site": principal.said.site,
        "caller_organisation": principal.said.organisation,
        "duration_us": (time.monotonic_ns() - call.started_ns) // 1000,
    }
