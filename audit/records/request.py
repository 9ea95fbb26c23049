"""Requests through a gateway, and what their decisions were made on."""

from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct

from audit.records.base import Outcome, Record
from audit.records.fields import (
    Count,
    Digest,
    Identifier,
    Jurisdiction,
    Obligation,
    PlaceJurisdiction,
    Pseudonym,
    Time,
)


class Action(StrEnum):
    """What a caller asked the gateway for."""

    INFER = "infer"
    PLACE = "place"
    RECEIPT = "receipt"
    CONNECT = "connect"
    MODELS = "models"
    LOAD = "load"
    UNLOAD = "unload"
    INDEX = "index"
    STATISTICS = "statistics"
    STREAM = "stream"
    STREAM_END = "stream-end"
    METRICS = "metrics"
    SUBMIT = "submit"
    FETCH = "fetch"
    CANCEL = "cancel"
    CONSENT_GRANT = "consent-grant"
    CONSENT_WITHDRAW = "consent-withdraw"
    CONSENT_READ = "consent-read"
    REVIEW = "review"


class Flag(StrEnum):
    """What a reviewer must see at a glance."""

    BREAK_GLASS = "break-glass"
    REPORTED_BY_DEVICE = "reported-by-device"
    OTHER_MODEL = "other-model"
    FROM_CACHE = "from-cache"
    WITHHELD = "withheld"


class Problem(StrEnum):
    """Why a request was not served; the closed set that problem documents use as their type."""

    BODY_MALFORMED = "body-malformed"
    BODY_TOO_LARGE = "body-too-large"
    CONSENT_UNAVAILABLE = "consent-unavailable"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    DEVICE_OFFLINE = "device-offline"
    DEVICE_REFUSED = "device-refused"
    ENCODING_UNSUPPORTED = "encoding-unsupported"
    EXECUTION_FAILED = "execution-failed"
    FACTS_INVALID = "facts-invalid"
    INPUT_INVALID = "input-invalid"
    INTERNAL = "internal"
    LOG_UNAVAILABLE = "log-unavailable"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    MODEL_NOT_READY = "model-not-ready"
    MODEL_UNKNOWN = "model-unknown"
    NODE_UNREACHABLE = "node-unreachable"
    NOT_FOUND = "not-found"
    NOT_SECOND_PERSON = "not-second-person"
    OBLIGATION_UNMET = "obligation-unmet"
    OVERLOADED = "overloaded"
    POLICY_REFUSED = "policy-refused"
    RATE_LIMITED = "rate-limited"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 a problem's name, not a secret
    TOKEN_INVALID = "token-invalid"  # noqa: S105 likewise
    TOKEN_MISSING = "token-missing"  # noqa: S105 likewise
    WORK_GONE = "work-gone"
    WORK_NOT_DONE = "work-not-done"
    WORK_UNAVAILABLE = "work-unavailable"
    WORK_UNKNOWN = "work-unknown"


class PlaceTrait(StrEnum):
    """What policies see in a place besides its kind, its jurisdiction and its operator.

    `agreement` stands in records from before there were several: it was one with a business associate.
    """

    ON_PREMISES = "on-premises"
    AGREEMENT = "agreement"
    BAA = "baa"
    DUA = "dua"
    DPA = "dpa"
    SCC = "scc"
    BCR = "bcr"
    ATTESTED = "attested"
    ADEQUACY = "adequacy"
    HOLDS_SUBJECT = "holds-subject"


AGREEMENTS: Final = frozenset(
    {
        PlaceTrait.AGREEMENT,
        PlaceTrait.BAA,
        PlaceTrait.DUA,
        PlaceTrait.DPA,
        PlaceTrait.SCC,
        PlaceTrait.BCR,
    }
)


class DecisionChange(StrEnum):
    """How another bundle would have decided a request otherwise."""

    PERMITTED = "permitted"
    REFUSED = "refused"
    MOVED = "moved"
    OBLIGATIONS = "obligations"


class WorkVerdict(StrEnum):
    """What a second person says of a result that was withheld."""

    RELEASE = "release"
    REFUSE = "refuse"


class Place(Struct, frozen=True, array_like=True):
    """A place where a request could have run, as policies saw it; a JSON array of three fields."""

    placement: Identifier
    jurisdiction: PlaceJurisdiction
    traits: tuple[PlaceTrait, ...] = ()


class ShadowDifference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the candidate bundle that decided beside the one in force differed from it."""

    bundle: Digest
    changes: tuple[DecisionChange, ...]


class ConsentScope(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a person agreed to, or no longer agrees to: the grants, and what they cover.

    No `models` or `data_classes` means all of them. `begins` and `expires` are those of a grant; a
    withdrawal has neither, since it counts from its own record's time on.
    """

    grants: tuple[UUID, ...]
    purposes: tuple[Identifier, ...] = ()
    models: tuple[Identifier, ...] = ()
    data_classes: tuple[Identifier, ...] = ()
    begins: Time | None = None
    expires: Time | None = None


class RequestRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="request"):
    """One request through the gateway, served or not.

    `principal`, `roles` and `model` are set only from a verified token and the site's own registry:
    what an unauthenticated caller typed is never copied. `status` is the HTTP status of the answer
    and `duration_us` the time from first byte to decision to record, in microseconds. `attempted` are
    placements that the request was sent to before, and that did not answer it. `changed` are the nodes
    on which a model was loaded or unloaded.

    `operators` are those of candidates, by placement, where they are known. With these, `on_device`,
    `carries_payload`, the caller's kind, site and organisation, and the `candidates`, everything that a
    placement was decided on is there, so that the decision can be repeated; they are set where one was
    decided.

    A stream has two records of one `id`: `stream`, before its first response, and `stream-end`, with
    how it ended and how many `responses` it gave. Without a second the gateway itself was stopped.

    A result with the flag `withheld` was kept back until a second person reviewed it: `verdict` is what
    came of it, in that person's own record under the same `id`.

    `scope` is what a grant or a withdrawal of consent is about: it counts once its record is durable.
    """

    action: Action
    outcome: Outcome
    status: Annotated[int, Meta(ge=100, le=599)]
    principal: Identifier | None = None
    roles: tuple[Identifier, ...] = ()
    caller_kind: Identifier | None = None
    caller_site: Identifier | None = None
    caller_organisation: Identifier | None = None
    subject: Pseudonym | None = None
    model: Identifier | None = None
    model_version: Identifier | None = None
    model_digest: Digest | None = None
    data_class: Identifier | None = None
    jurisdiction: Jurisdiction | None = None
    purpose: Identifier | None = None
    consent: bool = False
    emergency: bool = False
    on_device: bool | None = None
    carries_payload: bool | None = None
    candidates: tuple[Place, ...] = ()
    operators: tuple[tuple[Identifier, Identifier], ...] = ()
    placement: Identifier | None = None
    attempted: tuple[Identifier, ...] = ()
    changed: tuple[Identifier, ...] = ()
    policies: tuple[Identifier, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    bundle: Digest | None = None
    problem: Problem | None = None
    flags: tuple[Flag, ...] = ()
    rows: Count | None = None
    responses: Count | None = None
    duration_us: Count | None = None
    shadow: ShadowDifference | None = None
    scope: ConsentScope | None = None
    verdict: WorkVerdict | None = None


class RefusalsRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="refusals"):
    """Requests that were refused alike at a full door, whatever their bodies held.

    All were one caller's, asked the same of the same model, and came between `time` and `until`; there
    were `count` of them. `id` is the record's own: none of these requests had one yet. Each was
    answered with the place of this record, once that was durable.
    """

    action: Action
    outcome: Outcome
    status: Annotated[int, Meta(ge=100, le=599)]
    problem: Problem
    principal: Identifier
    roles: tuple[Identifier, ...] = ()
    model: Identifier
    until: Time
    count: Annotated[int, Meta(ge=1)]
