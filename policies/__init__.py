"""The decision engine: Cedar policies, the facts they judge, and the tokens that say who is asking."""

from policies.approval import Approvers, add_signature, draft_document, merged, read_draft
from policies.assertions import DeviceVerifier
from policies.bundle import (
    Bundle,
    ModelAccess,
    Rollback,
    RollbackReason,
    build_bundle,
    find_problems,
    read_bundle,
    sign,
    validate,
    verify,
    version_and_digest,
    write_bundle,
)
from policies.check import check_packs, untested_policies
from policies.comparison import Change, changes
from policies.decision import Decision, Verdict
from policies.engine import ApiAction, Engine
from policies.errors import (
    ApproversInvalid,
    BundleForeign,
    BundleInvalid,
    BundleOutdated,
    BundleUnderSigned,
    BundleUntrusted,
    CasesInvalid,
    FactsInvalid,
    PolicyError,
    TokenExpired,
    TokenInvalid,
)
from policies.explain import explain, why
from policies.facts import (
    Agreement,
    Caller,
    CallerKind,
    Candidate,
    DataClass,
    Facts,
    PlacementKind,
    Purpose,
    RiskClass,
    Role,
)
from policies.keeper import BundleKeeper, Load, LoadProblem, OnLoad
from policies.numbers import Numbers
from policies.obligations import Obligation, Obligations, combined
from policies.pack import Group
from policies.replay import Example, Recorded, Replay, replay
from policies.signed_claims import key_id
from policies.testing import CaseResult, PackRun, run_cases
from policies.tokens import (
    AssertedFacts,
    Belonging,
    Principal,
    TokenIssuer,
    TokenVerifier,
)
from policies.unpack import gather, unpack, with_sources
from policies.validation import Finding, PolicyText
from policies.watch import WatchedFile

__all__ = [
    "Agreement",
    "ApiAction",
    "Approvers",
    "ApproversInvalid",
    "AssertedFacts",
    "Belonging",
    "Bundle",
    "BundleForeign",
    "BundleInvalid",
    "BundleKeeper",
    "BundleOutdated",
    "BundleUnderSigned",
    "BundleUntrusted",
    "Caller",
    "CallerKind",
    "Candidate",
    "CaseResult",
    "CasesInvalid",
    "Change",
    "DataClass",
    "Decision",
    "DeviceVerifier",
    "Engine",
    "Example",
    "Facts",
    "FactsInvalid",
    "Finding",
    "Group",
    "Load",
    "LoadProblem",
    "ModelAccess",
    "Numbers",
    "Obligation",
    "Obligations",
    "OnLoad",
    "PackRun",
    "PlacementKind",
    "PolicyError",
    "PolicyText",
    "Principal",
    "Purpose",
    "Recorded",
    "Replay",
    "RiskClass",
    "Role",
    "Rollback",
    "RollbackReason",
    "TokenExpired",
    "TokenInvalid",
    "TokenIssuer",
    "TokenVerifier",
    "Verdict",
    "WatchedFile",
    "add_signature",
    "build_bundle",
    "changes",
    "check_packs",
    "combined",
    "draft_document",
    "explain",
    "find_problems",
    "gather",
    "key_id",
    "merged",
    "read_bundle",
    "read_draft",
    "replay",
    "run_cases",
    "sign",
    "unpack",
    "untested_policies",
    "validate",
    "verify",
    "version_and_digest",
    "why",
    "with_sources",
    "write_bundle",
]
