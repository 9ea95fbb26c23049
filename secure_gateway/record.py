"""Stage 6, write it down: one record for each request, durable before anything is answered."""

import time

from audit import Log
from audit.records import Flag, Outcome, RequestRecord, encode
from secure_gateway.exchange import Exchange
from secure_gateway.problems import status_of

REVIEW = "review"


class Recorder:
    """Turns an exchange into a record and waits until the log has made it durable."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def record(self, exchange: Exchange) -> str:
        """Append the record of `exchange`; return where it stands: `<origin>#<index>`.

        Raises:
            LogUnavailable: if the record cannot be made durable; nothing may be answered then.
        """
        return await self.append(record_of(exchange))

    async def append(self, record: RequestRecord) -> str:
        """Append `record`; return where it stands: `<origin>#<index>`.

        Raises:
            LogUnavailable: if the record cannot be made durable.
        """
        index = await self._log.append(encode(record))
        return f"{self._log.origin}#{index}"


def record_of(exchange: Exchange) -> RequestRecord:
    """Return what the log says of `exchange`: only fields from closed sets, numbers and digests."""
    principal, facts, decision = exchange.principal, exchange.facts, exchange.decision
    model, refusal, request = exchange.model, exchange.refusal, exchange.request
    status = 200 if refusal is None else status_of(refusal.problem)
    if refusal is None:
        outcome = Outcome.SERVED
    else:
        outcome = Outcome.REFUSED if status < 500 else Outcome.FAILED
    return RequestRecord(
        time=exchange.time,
        id=exchange.id,
        action=exchange.call.action,
        outcome=outcome,
        status=status,
        principal=principal.id if principal else None,
        roles=tuple(sorted(principal.roles)) if principal else (),
        subject=exchange.pseudonym,
        model=model.name if model else None,
        model_version=model.version if model else None,
        model_digest=model.digest if model else None,
        data_class=facts.data_class if facts else None,
        jurisdiction=facts.jurisdiction if facts else None,
        purpose=facts.purpose if facts else None,
        consent=facts.consent if facts else False,
        emergency=facts.emergency if facts else False,
        placement=exchange.placement,
        policies=decision.policies if decision else (),
        obligations=decision.obligations if decision else (),
        bundle=decision.bundle_digest if decision else None,
        problem=refusal.problem if refusal else None,
        flags=(Flag.BREAK_GLASS,) if decision and REVIEW in decision.obligations else (),
        rows=request.rows if request else None,
        duration_us=(time.monotonic_ns() - exchange.call.started_ns) // 1000,
    )
