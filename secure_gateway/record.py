"""Stage 6, write it down: one record for each request, durable before anything is answered."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from audit import Log, LogUnavailable
from audit.records import Action, Flag, Outcome, Place, PlaceTrait, RequestRecord, encode
from policies import Candidate
from secure_gateway.counting import RequestCounters
from secure_gateway.errors import DoorFull
from secure_gateway.exchange import Answer, Exchange
from secure_gateway.problems import status_of
from secure_gateway.record_template import RecordTemplates, filled
from secure_gateway.refusals import SharedRefusals
from secure_gateway.shadow import difference

REVIEW = "review"

Prepare = Callable[[Answer], None]
"""Prepares what an answer is sent as, told where its record will stand once it is there."""

logger = logging.getLogger(__name__)

_REVIEW: Final = (Flag.BREAK_GLASS,)

# A site's nodes are few; what varies is the device that holds a subject's data.
PLACES_REMEMBERED: Final = 1024

# The caller closed the connection first: nobody is answered with it. (nginx's own code, and that of
# gRPC's CANCELLED in google.rpc.Code.)
CALLER_GONE: Final = 499

# Submitted work is accepted, not answered yet (RFC 9110 section 15.3.3); a grant was created.
SERVED: Final = {Action.SUBMIT: 202, Action.CONSENT_GRANT: 201}


class Recorder:
    """Turns an exchange into a record and waits until the log has made it durable."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.counters = RequestCounters()
        self.refusals = SharedRefusals(log, self.counters)
        self._templates = RecordTemplates()

    @property
    def writable(self) -> bool:
        """Whether the log takes records, as far as is known."""
        return self._log.writable

    @property
    def kept_awake_s(self) -> float:
        """For how long the log kept the event loop awake with nothing to do, in all."""
        return self._log.kept_awake_s

    async def record(self, exchange: Exchange, prepare: Prepare | None = None) -> str:
        """Append the record of `exchange`; return where it stands: `<origin>#<index>`.

        `prepare` may be called while the record is being written, so that the answer is encoded by the
        time it may be sent.

        Raises:
            LogUnavailable: if the record cannot be made durable; nothing may be answered then.
        """
        if type(exchange.refusal) is DoorFull:
            return await self.refusals.record(exchange)
        template = self._templates.find(exchange)
        if template is None:
            record = record_of(exchange)
            self._templates.learn(exchange, record)
            return await self.append(record)
        record = filled(template, exchange)
        try:
            index = await self._log.append(encode(record), self._meanwhile(exchange, prepare))
        except LogUnavailable:
            self.counters.unrecorded += 1
            raise
        except asyncio.CancelledError:
            # Its caller has left. The log has it all the same.
            self.counters.count(record, template.labels)
            raise
        self.counters.count(record, template.labels)
        return f"{self._log.origin}#{index}"

    def _meanwhile(self, exchange: Exchange, prepare: Prepare | None) -> Callable[[int], None] | None:
        if prepare is None:
            return None
        return lambda index: prepare(Answer(exchange, f"{self._log.origin}#{index}"))

    async def end(self, exchange: Exchange) -> str:
        """Append how a stream ended, under the `id` that its opening has.

        Raises:
            LogUnavailable: if the record cannot be made durable.
        """
        return await self.append(end_of(exchange))

    def note(self, record: RequestRecord) -> None:
        """Append the record of a request whose caller left; nobody waits for it.

        What the log takes it makes durable, and `Log.close` waits for it.
        """
        try:
            self._log.append(encode(record)).add_done_callback(_noted)
        except LogUnavailable as error:
            self.counters.unrecorded += 1
            _lost(error)
        else:
            self.counters.count(record)

    async def append(self, record: RequestRecord) -> str:
        """Append `record`; return where it stands: `<origin>#<index>`.

        Raises:
            LogUnavailable: if the record cannot be made durable.
        """
        try:
            index = await self._log.append(encode(record))
        except LogUnavailable:
            self.counters.unrecorded += 1
            raise
        except asyncio.CancelledError:
            self.counters.count(record)
            raise
        self.counters.count(record)
        return f"{self._log.origin}#{index}"


def record_of(exchange: Exchange) -> RequestRecord:
    """Return what the log says of `exchange`: only fields from closed sets, numbers and digests."""
    principal, facts, decision = exchange.principal, exchange.facts, exchange.decision
    model, refusal, request = exchange.model, exchange.refusal, exchange.request
    status = SERVED.get(exchange.call.action, 200) if refusal is None else status_of(refusal.problem)
    if exchange.abandoned:
        status, outcome = CALLER_GONE, Outcome.ABANDONED
    elif refusal is None:
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
        caller_kind=principal.kind if principal else None,
        caller_site=principal.said.site if principal else None,
        caller_organisation=principal.said.organisation if principal else None,
        subject=exchange.pseudonym,
        model=model.name if model else None,
        # Other servers' models may have no version.
        model_version=model.version or None if model else None,
        model_digest=model.digest if model else None,
        data_class=facts.data_class if facts else None,
        jurisdiction=facts.jurisdiction if facts else None,
        purpose=facts.purpose if facts else None,
        consent=facts.consent if facts else False,
        emergency=facts.emergency if facts else False,
        on_device=facts.on_device if facts else None,
        carries_payload=facts.carries_payload if facts else None,
        candidates=_places(exchange.candidates),
        operators=_operators(exchange.candidates),
        placement=exchange.placement,
        attempted=exchange.attempted,
        changed=exchange.changed,
        policies=decision.policies if decision else (),
        obligations=decision.obligations if decision else (),
        bundle=decision.bundle_digest if decision else None,
        problem=refusal.problem if refusal else None,
        flags=_flags(exchange),
        rows=request.rows if request else None,
        responses=exchange.responses,
        duration_us=(time.monotonic_ns() - exchange.call.started_ns) // 1000,
        shadow=difference(decision, exchange.shadow, exchange.placement),
        scope=exchange.scope,
        verdict=exchange.verdict,
    )


def end_of(exchange: Exchange) -> RequestRecord:
    """Return what the log says of the end of a stream."""
    return replace(record_of(exchange), action=Action.STREAM_END, time=datetime.now(UTC))


def _noted(done: "asyncio.Future[int]") -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        _lost(error)


def _lost(error: BaseException) -> None:
    logger.error("the record of a request whose caller left is lost: %s", error)


def _flags(exchange: Exchange) -> tuple[Flag, ...]:
    decision = exchange.decision
    flags = _REVIEW if decision is not None and REVIEW in decision.obligations else ()
    if exchange.from_cache:
        flags = (*flags, Flag.FROM_CACHE)
    if exchange.withheld:
        flags = (*flags, Flag.WITHHELD)
    return flags


@lru_cache(maxsize=PLACES_REMEMBERED)
def _places(candidates: tuple[Candidate, ...]) -> tuple[Place, ...]:
    return tuple(
        Place(
            candidate.placement,
            candidate.jurisdiction,
            tuple(trait for trait, holds in _traits(candidate) if holds),
        )
        for candidate in candidates
    )


@lru_cache(maxsize=PLACES_REMEMBERED)
def _operators(candidates: tuple[Candidate, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((each.placement, each.operator) for each in candidates if each.operator)


def _traits(candidate: Candidate) -> tuple[tuple[PlaceTrait, bool], ...]:
    return (
        (PlaceTrait.ON_PREMISES, candidate.on_premises),
        *((PlaceTrait(signed.value), True) for signed in sorted(candidate.agreements)),
        (PlaceTrait.ATTESTED, candidate.attested),
        (PlaceTrait.ADEQUACY, candidate.adequacy),
        (PlaceTrait.HOLDS_SUBJECT, candidate.holds_subject),
    )
