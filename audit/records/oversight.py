"""What officers do with the log itself: reports, reviews, erasures, holds and pruning."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from audit.records.base import Record
from audit.records.fields import Count, Digest, Identifier, Matter, Pseudonym, Time


class ReviewVerdict(StrEnum):
    """What came out of a review: `escalated` is for somebody else to follow up."""

    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"
    ESCALATED = "escalated"


class HoldChange(StrEnum):
    """What happened to a legal hold."""

    PLACED = "placed"
    RELEASED = "released"


class ReportStep(StrEnum):
    """What was done about a report; `refused`: the caller may have none."""

    ORDERED = "ordered"
    MADE = "made"
    FETCHED = "fetched"
    REFUSED = "refused"


class HoldScope(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which records a legal hold keeps: those that match everything given here; with nothing, all."""

    since: Time | None = None
    until: Time | None = None
    logs: tuple[Identifier, ...] = ()
    models: tuple[Identifier, ...] = ()
    principals: tuple[Identifier, ...] = ()
    subjects: tuple[Pseudonym, ...] = ()


class ReportRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="report"):
    """An audit report was made, or was ordered, fetched or refused through an API.

    `digest` is SHA-256 of the manifest of its zip file. A refusal of everything names no `kind`.
    """

    step: ReportStep = ReportStep.MADE
    kind: Identifier | None = None
    principal: Identifier | None = None
    digest: Digest | None = None


class ReviewRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="review"):
    """Somebody reviewed a use of break-glass: the request whose record stands at that place."""

    reviewed_log: Identifier
    reviewed_number: Count
    verdict: ReviewVerdict
    principal: Identifier


class ErasureRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="erasure"):
    """A person's pseudonym key was destroyed; whose, no record can say."""

    principal: Identifier


class HoldRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="hold"):
    """A legal hold was placed or released; both have the same `id`, `reference` and `scope`."""

    change: HoldChange
    reference: Matter
    scope: HoldScope
    principal: Identifier


class PruneRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="prune"):
    """A log is to begin at `minimum_index` from now on: what stands below was past its retention.

    `newest` is the newest time of what goes, and `days` how long the site keeps records at least.
    """

    log: Identifier
    minimum_index: Annotated[int, Meta(ge=1)]
    newest: Time
    days: Count
    principal: Identifier
