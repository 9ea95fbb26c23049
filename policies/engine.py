"""The decision engine: asks Cedar about every candidate, and remembers the answers.

Decisions depend only on the bundle, the facts and the candidates, all of few values, so they are
cached. A policy that cannot be evaluated refuses: Cedar would skip it, and a skipped forbid permits.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import cedarpy
from msgspec import Struct

from policies.bundle import Bundle, PolicyText, validate
from policies.errors import BundleOutdated
from policies.facts import Candidate, Facts, PlacementKind, Role

DEFAULT_DENY: Final = "default-deny"
EVALUATION_ERROR: Final = "evaluation-error"
CACHED_DECISIONS: Final = 65536

_PLACE: Final = 'Action::"place"'
_CALLER: Final = 'Caller::"caller"'


class ApiAction(StrEnum):
    """What can be asked of Bedside's components besides placing a request; default deny."""

    AUDIT_READ = "audit.read"
    AUDIT_REPORT = "audit.report"
    CHANNEL_OPEN = "channel.open"
    DEVICES_ENROL = "devices.enrol"
    DEVICES_READ = "devices.read"
    DEVICES_REVOKE = "devices.revoke"
    JOBS_READ = "jobs.read"
    JOBS_RUN = "jobs.run"
    MODELS_READ = "models.read"
    POLICY_READ = "policy.read"
    RELEASES_PUBLISH = "releases.publish"
    RELEASES_READ = "releases.read"


class Verdict(Struct, frozen=True, kw_only=True):
    """What was decided of one candidate, and the policies that determined it."""

    placement: str
    permitted: bool
    policies: tuple[PolicyText, ...]


class Decision(Struct, frozen=True, kw_only=True):
    """Where a request may run.

    `policies` are the ids that determined it: those that permit a placement and those that exclude
    one (`default-deny` where no policy spoke); `citations` are theirs, without repeats.
    `obligations` are the union over the permits.
    """

    permitted: tuple[str, ...]
    obligations: tuple[str, ...]
    policies: tuple[str, ...]
    citations: tuple[str, ...]
    bundle_digest: str
    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether anything is permitted at all."""
        return bool(self.permitted)


class _Loaded:
    """One bundle, parsed: replaced as a whole, so that no request sees half of one."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.digest = bundle.digest()
        self.texts = {f"policy{n}": text for n, text in enumerate(validate(bundle))}
        self.policies = cedarpy.PolicySet.from_str(bundle.source())
        self.schema = cedarpy.Schema.from_str(bundle.schema)
        self.groups = _group_entities(bundle)
        self.decisions: OrderedDict[object, Decision] = OrderedDict()


class Engine:
    """Decides by one bundle at a time."""

    def __init__(self, bundle: Bundle) -> None:
        """Load `bundle`.

        Raises:
            BundleInvalid: if it does not validate.
        """
        self._loaded = _Loaded(bundle)

    @property
    def bundle(self) -> Bundle:
        """The bundle in use."""
        return self._loaded.bundle

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle in use, in hexadecimal."""
        return self._loaded.digest

    @property
    def texts(self) -> tuple[PolicyText, ...]:
        """What the policies in use say of themselves."""
        return tuple(self._loaded.texts.values())

    def replace(self, bundle: Bundle) -> None:
        """Decide by `bundle` from the next request on.

        Raises:
            BundleOutdated: if its version is lower than the one in use.
            BundleInvalid: if it does not validate; the one in use stays.
        """
        if bundle.version < self._loaded.bundle.version:
            raise BundleOutdated(
                f"bundle version {bundle.version} is older than {self._loaded.bundle.version}"
            )
        self._loaded = _Loaded(bundle)

    def decide(self, facts: Facts, candidates: tuple[Candidate, ...]) -> Decision:
        """Return which of `candidates` may run a request with these facts."""
        loaded = self._loaded
        key = (facts, candidates)
        decision = loaded.decisions.get(key)
        if decision is None:
            decision = _decide(loaded, facts, candidates)
            _remember(loaded, key, decision)
        return decision

    def authorize(self, roles: frozenset[Role], action: ApiAction) -> Decision:
        """Return whether a caller with `roles` may do `action`; `permitted` then names it."""
        loaded = self._loaded
        key = (roles, action)
        decision = loaded.decisions.get(key)
        if decision is None:
            decision = _authorize(loaded, roles, action)
            _remember(loaded, key, decision)
        return decision


def _remember(loaded: _Loaded, key: object, decision: Decision) -> None:
    loaded.decisions[key] = decision
    if len(loaded.decisions) > CACHED_DECISIONS:
        loaded.decisions.popitem(last=False)


def _decide(loaded: _Loaded, facts: Facts, candidates: tuple[Candidate, ...]) -> Decision:
    if not candidates:
        return _combine(loaded, ())
    context = {
        "model": _reference("Model", facts.model),
        "jurisdiction": _reference("Jurisdiction", facts.jurisdiction),
        "data_class": facts.data_class.value,
        "purpose": facts.purpose.value,
        "consent": facts.consent,
        "emergency": facts.emergency,
        "on_device": facts.on_device,
        "carries_payload": facts.carries_payload,
    }
    entities = [
        *loaded.groups,
        _caller(facts.roles),
        _model(loaded, facts.model),
        *(_place(n, candidate) for n, candidate in enumerate(candidates)),
        *_homes(loaded, {facts.jurisdiction, *(c.jurisdiction for c in candidates)}),
    ]
    requests = [
        {
            "principal": _CALLER,
            "action": _PLACE,
            "resource": {"type": _kind(candidate), "id": str(n)},
            "context": context,
        }
        for n, candidate in enumerate(candidates)
    ]
    results = _ask(loaded, requests, entities)
    return _combine(
        loaded,
        tuple(
            _verdict(loaded, candidate.placement, result)
            for candidate, result in zip(candidates, results, strict=True)
        ),
    )


def _authorize(loaded: _Loaded, roles: frozenset[Role], action: ApiAction) -> Decision:
    request = {
        "principal": _CALLER,
        "action": f'Action::"{action.value}"',
        "resource": 'Api::"bedside"',
        "context": {},
    }
    api = {"uid": {"type": "Api", "id": "bedside"}, "attrs": {}, "parents": []}
    (result,) = _ask(loaded, [request], [_caller(roles), api])
    return _combine(loaded, (_verdict(loaded, action.value, result),))


def _ask(
    loaded: _Loaded, requests: list[dict[str, Any]], entities: Sequence[dict[str, Any]]
) -> list[cedarpy.AuthzResult]:
    handle = cedarpy.Entities.from_json_str(json.dumps(entities), loaded.schema)
    results: list[cedarpy.AuthzResult] = cedarpy.is_authorized_batch(
        requests, loaded.policies, handle, loaded.schema
    )
    return results


def _verdict(loaded: _Loaded, placement: str, result: cedarpy.AuthzResult) -> Verdict:
    if result.diagnostics.errors:
        failed = PolicyText(
            id=EVALUATION_ERROR,
            title="A policy could not be evaluated",
            citation="fail closed",
            effect="forbid",
            obligations=(),
            path="",
            line=0,
        )
        return Verdict(placement=placement, permitted=False, policies=(failed,))
    texts = sorted((loaded.texts[reason] for reason in result.diagnostics.reasons), key=_by_id)
    return Verdict(placement=placement, permitted=result.allowed, policies=tuple(texts))


def _combine(loaded: _Loaded, verdicts: tuple[Verdict, ...]) -> Decision:
    decisive = {text.id: text for verdict in verdicts for text in verdict.policies}
    texts = sorted(decisive.values(), key=_by_id)
    obligations = {
        name
        for verdict in verdicts
        if verdict.permitted
        for text in verdict.policies
        for name in text.obligations
    }
    return Decision(
        permitted=tuple(verdict.placement for verdict in verdicts if verdict.permitted),
        obligations=tuple(sorted(obligations)),
        policies=tuple(text.id for text in texts) or (DEFAULT_DENY,),
        citations=tuple(dict.fromkeys(text.citation for text in texts)),
        bundle_digest=loaded.digest,
        verdicts=verdicts,
    )


def _by_id(text: PolicyText) -> str:
    return text.id


def _reference(kind: str, identifier: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": identifier}}


def _kind(candidate: Candidate) -> str:
    return "Node" if candidate.kind is PlacementKind.NODE else "Device"


def _caller(roles: frozenset[Role]) -> dict[str, Any]:
    parents = [{"type": "Role", "id": role.value} for role in sorted(roles)]
    return {"uid": {"type": "Caller", "id": "caller"}, "attrs": {}, "parents": parents}


def _model(loaded: _Loaded, name: str) -> dict[str, Any]:
    access = loaded.bundle.models.get(name)
    attributes = {
        "roles": [_reference("Role", role) for role in access.roles] if access else [],
        "purposes": [purpose.value for purpose in access.purposes] if access else [],
    }
    return {"uid": {"type": "Model", "id": name}, "attrs": attributes, "parents": []}


def _place(number: int, candidate: Candidate) -> dict[str, Any]:
    attributes: dict[str, Any] = {"jurisdiction": _reference("Jurisdiction", candidate.jurisdiction)}
    if candidate.kind is PlacementKind.NODE:
        attributes |= {"on_premises": candidate.on_premises, "agreement": candidate.agreement}
    else:
        attributes["holds_subject"] = candidate.holds_subject
    uid = {"type": _kind(candidate), "id": str(number)}
    return {"uid": uid, "attrs": attributes, "parents": []}


def _group_entities(bundle: Bundle) -> list[dict[str, Any]]:
    return [_jurisdiction(bundle, name) for name in bundle.groups]


def _homes(loaded: _Loaded, names: set[str]) -> list[dict[str, Any]]:
    """Return the jurisdictions that no group names, with a state's country above them."""
    countries = {name.partition("-")[0] for name in names}
    return [
        _jurisdiction(loaded.bundle, name)
        for name in sorted(names | countries)
        if name not in loaded.bundle.groups
    ]


def _jurisdiction(bundle: Bundle, name: str) -> dict[str, Any]:
    parents = set(bundle.groups.get(name, ()))
    country, _, state = name.partition("-")
    if state and len(country) == 2:
        parents.add(country)
    return {
        "uid": {"type": "Jurisdiction", "id": name},
        "attrs": {},
        "parents": [{"type": "Jurisdiction", "id": parent} for parent in sorted(parents)],
    }
