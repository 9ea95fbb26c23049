"""The decision engine: Cedar policies, the facts they judge, and the tokens that say who is asking."""

from policies.bundle import Bundle, ModelAccess, PolicyText, build_bundle, sign, validate, verify
from policies.engine import ApiAction, Decision, Engine, Verdict
from policies.errors import (
    BundleInvalid,
    BundleOutdated,
    BundleUntrusted,
    PolicyError,
    TokenExpired,
    TokenInvalid,
)
from policies.explain import explain, why
from policies.facts import Candidate, DataClass, Facts, PlacementKind, Purpose, Role
from policies.tokens import (
    AssertedFacts,
    DeviceVerifier,
    Principal,
    TokenIssuer,
    TokenVerifier,
    key_id,
)

__all__ = [
    "ApiAction",
    "AssertedFacts",
    "Bundle",
    "BundleInvalid",
    "BundleOutdated",
    "BundleUntrusted",
    "Candidate",
    "DataClass",
    "Decision",
    "DeviceVerifier",
    "Engine",
    "Facts",
    "ModelAccess",
    "PlacementKind",
    "PolicyError",
    "PolicyText",
    "Principal",
    "Purpose",
    "Role",
    "TokenExpired",
    "TokenInvalid",
    "TokenIssuer",
    "TokenVerifier",
    "Verdict",
    "build_bundle",
    "explain",
    "key_id",
    "sign",
    "validate",
    "verify",
    "why",
]
