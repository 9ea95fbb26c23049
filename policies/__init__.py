"""The decision engine: Cedar policies, the facts they judge, and the tokens that say who is asking."""

from policies.assertions import DeviceVerifier
from policies.bundle import (
    Bundle,
    ModelAccess,
    build_bundle,
    find_problems,
    read_bundle,
    sign,
    validate,
    verify,
    write_bundle,
)
from policies.check import check_packs
from policies.decision import Decision, Verdict
from policies.engine import ApiAction, Engine
from policies.errors import (
    BundleInvalid,
    BundleOutdated,
    BundleUntrusted,
    CasesInvalid,
    PolicyError,
    TokenExpired,
    TokenInvalid,
)
from policies.explain import explain, why
from policies.facts import Candidate, DataClass, Facts, PlacementKind, Purpose, Role
from policies.pack import Group
from policies.signed_claims import key_id
from policies.testing import CaseResult, PackRun, run_cases
from policies.tokens import (
    AssertedFacts,
    Principal,
    PrincipalKind,
    TokenIssuer,
    TokenVerifier,
)
from policies.validation import Finding, PolicyText

__all__ = [
    "ApiAction",
    "AssertedFacts",
    "Bundle",
    "BundleInvalid",
    "BundleOutdated",
    "BundleUntrusted",
    "Candidate",
    "CaseResult",
    "CasesInvalid",
    "DataClass",
    "Decision",
    "DeviceVerifier",
    "Engine",
    "Facts",
    "Finding",
    "Group",
    "ModelAccess",
    "PackRun",
    "PlacementKind",
    "PolicyError",
    "PolicyText",
    "Principal",
    "PrincipalKind",
    "Purpose",
    "Role",
    "TokenExpired",
    "TokenInvalid",
    "TokenIssuer",
    "TokenVerifier",
    "Verdict",
    "build_bundle",
    "check_packs",
    "explain",
    "find_problems",
    "key_id",
    "read_bundle",
    "run_cases",
    "sign",
    "validate",
    "verify",
    "why",
    "write_bundle",
]
