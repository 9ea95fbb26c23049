"""Steps in the life of a policy bundle."""

from enum import StrEnum

from audit.records.base import Record
from audit.records.fields import Count, Digest, Identifier


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
