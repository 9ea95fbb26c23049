"""What one audit entry says: metadata only, in types that have no field for content.

Every field is an enum, a number, a digest, a pseudonym, a time or an identifier from a closed set
(principals, models, placements and policies that the site itself registered). There is no free
text, so a record cannot carry an input, an output or the name of a person. The canonical bytes of a
record (`encode`) are one leaf of the transparency log.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Pseudonym = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Obligation = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}(\([A-Za-z0-9_.,/-]{1,1024}\))?$")]
Jurisdiction = Annotated[str, Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Time = Annotated[datetime, Meta(tz=True)]
# The number of a matter: too few letters for a name.
Matter = Annotated[str, Meta(pattern=r"^[A-Z]{1,4}(-[0-9]{1,8}){1,3}$")]
Count = Annotated[int, Meta(ge=0)]
# A record's place, `<log>#<number>`.
Reference = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}#[0-9]{1,18}$")]
# IPv4 or IPv6 in their canonical text.
Address = Annotated[str, Meta(pattern=r"^[0-9a-f.:]{2,45}$")]
# Where a device is may be unknown: it was revoked while its request was on its way.
PlaceJurisdiction = Annotated[str, Meta(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?$")]


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


class Outcome(StrEnum):
    """How a request ended; `abandoned`: its caller left before it was answered whole."""

    SERVED = "served"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"


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
    WORK_UNKNOWN = "work-unknown"


class PlaceTrait(StrEnum):
    """What policies see in a place besides its kind and its jurisdiction."""

    ON_PREMISES = "on-premises"
    AGREEMENT = "agreement"
    ADEQUACY = "adequacy"
    HOLDS_SUBJECT = "holds-subject"


class DecisionChange(StrEnum):
    """How another bundle would have decided a request otherwise."""

    PERMITTED = "permitted"
    REFUSED = "refused"
    MOVED = "moved"
    OBLIGATIONS = "obligations"


class PolicyStep(StrEnum):
    """What was done with a policy bundle: the steps of its life, and questions asked of it."""

    DRAFT = "draft"
    SIGN = "sign"
    WITHDRAW = "withdraw"
    PUBLISH = "publish"
    ROLLBACK = "rollback"
    LOAD = "load"
    SHADOW_START = "shadow-start"
    SHADOW_STOP = "shadow-stop"
    READ = "read"
    CHECK = "check"
    TEST = "test"
    PROVE = "prove"
    EXPLAIN = "explain"
    DIFF = "diff"
    REPLAY = "replay"


class PolicyOutcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    REFUSED = "refused"


class PolicyProblem(StrEnum):
    """Why a step was refused."""

    ANOTHER_SITE = "another-site"
    CHECKS_FAILED = "checks-failed"
    CLOCK_OFF = "clock-off"
    CONTENT_DIFFERS = "content-differs"
    DRAFT_EXPIRED = "draft-expired"
    INVALID = "invalid"
    NOT_PERMITTED = "not-permitted"
    OVERLOADED = "overloaded"
    PROOFS_FAILED = "proofs-failed"
    TESTS_FAILED = "tests-failed"
    UNDER_SIGNED = "under-signed"
    UNKNOWN = "unknown"
    UNTRUSTED = "untrusted"
    VERSION_OUTDATED = "version-outdated"


class RollbackReason(StrEnum):
    """Why a site went back to what it decided by before."""

    WRONG_PERMISSIONS = "wrong-permissions"
    WRONG_REFUSALS = "wrong-refusals"
    WRONG_OBLIGATIONS = "wrong-obligations"
    LAW_CHANGED = "law-changed"
    PUBLISHED_BY_MISTAKE = "published-by-mistake"


class DeviceChange(StrEnum):
    """What happened to a device's enrolment."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class ReviewVerdict(StrEnum):
    """What came out of a review: `escalated` is for somebody else to follow up."""

    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"
    ESCALATED = "escalated"


class HoldChange(StrEnum):
    """What happened to a legal hold."""

    PLACED = "placed"
    RELEASED = "released"


class WorkVerdict(StrEnum):
    """What a second person says of a result that was withheld."""

    RELEASE = "release"
    REFUSE = "refuse"


class ReportStep(StrEnum):
    """What was done about a report; `refused`: the caller may have none."""

    ORDERED = "ordered"
    MADE = "made"
    FETCHED = "fetched"
    REFUSED = "refused"


class ConsoleAction(StrEnum):
    """What somebody did in the console, or what was done with their account."""

    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    OPEN = "open"
    SEARCH = "search"
    VIEW_RECORD = "view-record"
    VIEW_SUBJECT = "view-subject"
    ACCOUNT_ADD = "account-add"
    ACCOUNT_CHANGE = "account-change"
    ACCOUNT_UNLOCK = "account-unlock"


class ConsoleProblem(StrEnum):
    """Why the console did not do it."""

    ACCOUNT_LOCKED = "account-locked"
    ADDRESS_LOCKED = "address-locked"
    NOT_PERMITTED = "not-permitted"
    SECRET_WRONG = "secret-wrong"  # noqa: S105 a problem's name, not a secret


class JobState(StrEnum):
    """Where a federated job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every record has: when it was made (UTC) and the request or job it belongs to."""

    time: Time
    id: UUID


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


class HoldScope(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which records a legal hold keeps: those that match everything given here; with nothing, all."""

    since: Time | None = None
    until: Time | None = None
    logs: tuple[Identifier, ...] = ()
    models: tuple[Identifier, ...] = ()
    principals: tuple[Identifier, ...] = ()
    subjects: tuple[Pseudonym, ...] = ()


class RequestRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="request"):
    """One request through the gateway, served or not.

    `principal`, `roles` and `model` are set only from a verified token and the site's own registry:
    what an unauthenticated caller typed is never copied. `status` is the HTTP status of the answer
    and `duration_us` the time from first byte to decision to record, in microseconds. `attempted` are
    placements that the request was sent to before, and that did not answer it. `changed` are the nodes
    on which a model was loaded or unloaded.

    With `on_device`, `carries_payload` and the `candidates`, everything that a placement was decided on
    is there, so that the decision can be repeated; they are set where one was decided.

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


class DeviceRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="device"):
    """A device was enrolled or revoked."""

    device: Identifier
    change: DeviceChange
    principal: Identifier | None = None
    subjects: Count = 0


class ReleaseRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="release"):
    """A signed model package was published."""

    model: Identifier
    model_version: Identifier
    model_digest: Digest
    principal: Identifier | None = None


class JobRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="job"):
    """A federated job changed state; `cohort` counts the devices whose sums returned."""

    kind: Identifier
    state: JobState
    model: Identifier
    model_version: Identifier
    principal: Identifier | None = None
    cohort: Count = 0
    cohort_minimum: Count = 0
    policies: tuple[Identifier, ...] = ()
    bundle: Digest | None = None


class ReportRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="report"):
    """An audit report was made, or was ordered, fetched or refused through an API.

    `digest` is SHA-256 of the manifest of its zip file. A refusal of everything names no `kind`.
    """

    step: ReportStep = ReportStep.MADE
    kind: Identifier | None = None
    principal: Identifier | None = None
    digest: Digest | None = None


class PolicyRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="policy"):
    """A step in the life of a policy bundle, or a question about one.

    `principal` is who asked, where it was asked through an API; `approvers` are the names, as the site
    configured them, of those whose signatures the bundle had. `restores` is the version that a rollback
    goes back to.
    """

    step: PolicyStep
    outcome: PolicyOutcome
    problem: PolicyProblem | None = None
    bundle: Digest | None = None
    version: Count | None = None
    principal: Identifier | None = None
    approvers: tuple[Identifier, ...] = ()
    restores: Count | None = None
    reason: RollbackReason | None = None


class ReviewRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="review"):
    """Somebody reviewed a use of break-glass: the request whose record stands at that place."""

    reviewed_log: Identifier
    reviewed_number: Count
    verdict: ReviewVerdict
    principal: Identifier


class ErasureRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="erasure"):
    """A person's pseudonym key was destroyed; whose, no record can say."""

    principal: Identifier


class ConsoleRecord(Record, frozen=True, kw_only=True, omit_defaults=True, tag="console"):
    """Somebody signed in to the console, looked at records, or fetched a report; refused or not.

    `shown` are the records that a page showed, and `subject` is whom it was about, where it was about
    one person. `principal` is an account of the console, never what somebody typed for one. `kind` and
    `digest` are a report's. `address` is where a sign-in came from, as the console saw it; `account` is
    the one that was added or changed.
    """

    action: ConsoleAction
    outcome: Outcome
    problem: ConsoleProblem | None = None
    principal: Identifier | None = None
    roles: tuple[Identifier, ...] = ()
    subject: Pseudonym | None = None
    shown: tuple[Reference, ...] = ()
    kind: Identifier | None = None
    digest: Digest | None = None
    address: Address | None = None
    account: Identifier | None = None


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


AnyRecord = (
    RequestRecord
    | RefusalsRecord
    | DeviceRecord
    | ReleaseRecord
    | JobRecord
    | PolicyRecord
    | ReportRecord
    | ReviewRecord
    | ErasureRecord
    | ConsoleRecord
    | HoldRecord
    | PruneRecord
)

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


def encode(record: AnyRecord) -> bytes:
    """Return the canonical bytes of `record`: UTF-8 JSON, keys sorted, defaults left out."""
    return _encoder.encode(record)


def decode(leaf: bytes) -> AnyRecord:
    """Return the record that `leaf` holds.

    Raises:
        msgspec.ValidationError: if the bytes are not exactly one record of this schema.
    """
    return _decoder.decode(leaf)
