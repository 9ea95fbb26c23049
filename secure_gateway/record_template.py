"""Records of requests that were served alike: what they share is worked out once.

A record has three dozen fields, and of the requests that one caller sends for one model all but five
are the same. `record_of` says what a record is; here the record of an earlier request is taken and
those five are put in, for a fifth of the time. Only requests that were served without anything out of
the ordinary are recorded so.
"""

import time
from typing import Final

from msgspec.structs import replace

from audit.records import RequestRecord
from policies import Candidate, Decision, Facts, Principal
from secure_gateway.counting import Labels, labels_of
from secure_gateway.exchange import Exchange, ModelInfo

REMEMBERED: Final = 1024


class Template:
    """The record of a request, and what it was made of."""

    __slots__ = (
        "candidates",
        "decision",
        "facts",
        "labels",
        "model",
        "principal",
        "record",
    )

    def __init__(self, exchange: Exchange, record: RequestRecord) -> None:
        self.principal: Principal | None = exchange.principal
        self.decision: Decision | None = exchange.decision
        self.model: ModelInfo | None = exchange.model
        self.facts: Facts | None = exchange.facts
        self.candidates: tuple[Candidate, ...] = exchange.candidates
        self.record = record
        self.labels: Labels = labels_of(record)

    def fits(self, exchange: Exchange) -> bool:
        """Whether the record of `exchange` differs from this one in times, subject and rows only.

        The decision is the same one already: its identity is part of the key.
        """
        return (
            exchange.principal is self.principal
            and exchange.model is self.model
            and exchange.candidates == self.candidates
            and exchange.facts == self.facts
        )


class RecordTemplates:
    """Remembers the last records of their kind, `REMEMBERED` of them."""

    def __init__(self) -> None:
        self._templates: dict[tuple[int, str | None, str], Template] = {}

    def find(self, exchange: Exchange) -> Template | None:
        """Return the template that fits; None where there is none, or the request is not ordinary."""
        template = self._templates.get(_key(exchange))
        if template is None or not template.fits(exchange) or not _ordinary(exchange):
            return None
        return template

    def learn(self, exchange: Exchange, record: RequestRecord) -> None:
        """Remember the record of a request, if it is ordinary."""
        if exchange.decision is not None and _ordinary(exchange):
            templates = self._templates
            if len(templates) >= REMEMBERED:
                templates.pop(next(iter(templates)))
            templates[_key(exchange)] = Template(exchange, record)


def filled(template: Template, exchange: Exchange) -> RequestRecord:
    """Return the record of `exchange`, which the template fits."""
    request = exchange.request
    return replace(
        template.record,
        time=exchange.time,
        id=exchange.id,
        subject=exchange.pseudonym,
        rows=request.rows if request else None,
        duration_us=(time.monotonic_ns() - exchange.call.started_ns) // 1000,
    )


def _key(exchange: Exchange) -> tuple[int, str | None, str]:
    # A decision that a template holds is alive, so no other has its identity.
    return id(exchange.decision), exchange.placement, exchange.call.action.value


def _ordinary(exchange: Exchange) -> bool:
    return (
        exchange.refusal is None
        and exchange.shadow is None
        and exchange.responses is None
        and exchange.scope is None
        and exchange.verdict is None
        and not (
            exchange.attempted
            or exchange.changed
            or exchange.from_cache
            or exchange.withheld
            or exchange.abandoned
        )
    )
