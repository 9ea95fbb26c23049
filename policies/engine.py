"""The decision engine: asks Cedar about every candidate, and remembers the answers.

Decisions depend only on the bundle, the facts and the candidates, all of few values, so they are
cached. A policy that cannot be evaluated refuses: Cedar would skip it, and a skipped forbid permits.
"""

from enum import StrEnum
from typing import Any, Final

import cedarpy

from policies.bundle import Bundle, validate
from policies.cache import LruCache
from policies.decision import Decision, Verdict, combine, failed_evaluation
from policies.entities import (
    API_ENTITY,
    CALLER,
    PLACE,
    Shape,
    World,
    api_entities,
    context_of,
    shape_of,
    work_entity,
)
from policies.errors import BundleOutdated
from policies.facts import Caller, Candidate, Facts
from policies.validation import PolicyText

CACHED_DECISIONS: Final = 16384

_Answer = tuple[bool, tuple[PolicyText, ...]]


class ApiAction(StrEnum):
    """What can be asked of Bedside's components besides placing a request; default deny."""

    AUDIT_ERASE = "audit.erase"
    AUDIT_HOLD = "audit.hold"
    AUDIT_PRUNE = "audit.prune"
    AUDIT_READ = "audit.read"
    AUDIT_REPORT = "audit.report"
    AUDIT_REVIEW = "audit.review"
    CHANNEL_OPEN = "channel.open"
    CONSENTS_GRANT = "consents.grant"
    CONSENTS_OWN = "consents.own"
    CONSENTS_READ = "consents.read"
    CONSENTS_WITHDRAW = "consents.withdraw"
    DEVICES_ENROL = "devices.enrol"
    DEVICES_READ = "devices.read"
    DEVICES_REVOKE = "devices.revoke"
    JOBS_READ = "jobs.read"
    JOBS_RUN = "jobs.run"
    METRICS_READ = "metrics.read"
    MODELS_LOAD = "models.load"
    MODELS_READ = "models.read"
    PLACEMENTS_ASK = "placements.ask"
    POLICY_APPROVE = "policy.approve"
    POLICY_DRAFT = "policy.draft"
    POLICY_PUBLISH = "policy.publish"
    POLICY_READ = "policy.read"
    POLICY_REPLAY = "policy.replay"
    POLICY_SHADOW = "policy.shadow"
    RECEIPTS_SEND = "receipts.send"
    RELEASES_PUBLISH = "releases.publish"
    RELEASES_READ = "releases.read"
    REPOSITORY_READ = "repository.read"
    STATISTICS_READ = "statistics.read"
    WORK_CANCEL = "work.cancel"
    WORK_JUDGE = "work.judge"
    WORK_READ = "work.read"
    WORK_REVIEW = "work.review"


ABOUT_WORK: Final = frozenset({ApiAction.WORK_CANCEL, ApiAction.WORK_JUDGE, ApiAction.WORK_READ})


class _Loaded:
    """One bundle, parsed: replaced as a whole, so that no request sees half of one."""

    def __init__(self, bundle: Bundle, cached_decisions: int) -> None:
        self.bundle = bundle
        self.digest = bundle.digest()
        self.texts = {f"policy{n}": text for n, text in enumerate(validate(bundle))}
        self.policies = cedarpy.PolicySet.from_str(bundle.source())
        self.world = World(bundle, cedarpy.Schema.from_str(bundle.schema_text()))
        self.decisions: LruCache[object, Decision] = LruCache(cached_decisions)


class Engine:
    """Decides by one bundle at a time."""

    def __init__(self, bundle: Bundle, *, cached_decisions: int = CACHED_DECISIONS) -> None:
        """Load `bundle`; remember at most `cached_decisions` answers.

        Raises:
            BundleInvalid: if it does not validate.
        """
        self._cached_decisions = cached_decisions
        self._loaded = _Loaded(bundle, cached_decisions)

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
            BundleOutdated: if its version is lower than the one in use, or the same with other
                content: a version names one bundle.
            BundleInvalid: if it does not validate; the one in use stays.
        """
        version = self._loaded.bundle.version
        if bundle.version < version:
            raise BundleOutdated(f"bundle version {bundle.version} is older than {version}")
        if bundle.version == version and bundle.digest() != self._loaded.digest:
            raise BundleOutdated(
                f"a different bundle of version {version} is in use; publish this one as {version + 1}"
            )
        self._loaded = _Loaded(bundle, self._cached_decisions)

    def adopt(self, other: "Engine") -> None:
        """Decide by what `other` decides by from the next request on, without parsing it again."""
        self._loaded = other._loaded  # noqa: SLF001 of this very class

    def decide(self, facts: Facts, candidates: tuple[Candidate, ...]) -> Decision:
        """Return which of `candidates` may run a request with these facts."""
        loaded = self._loaded
        key = (facts, candidates)
        decision = loaded.decisions.get(key)
        if decision is None:
            decision = _decide(loaded, facts, candidates)
            loaded.decisions.put(key, decision)
        return decision

    def authorize(self, caller: Caller, action: ApiAction, *, own: bool = False) -> Decision:
        """Return whether `caller` may do `action`; `permitted` then names it.

        `own` says that the work which the action is about is the caller's own.
        """
        loaded = self._loaded
        key = (caller, action, own)
        decision = loaded.decisions.get(key)
        if decision is None:
            decision = _authorize(loaded, caller, action, own)
            loaded.decisions.put(key, decision)
        return decision


def _decide(loaded: _Loaded, facts: Facts, candidates: tuple[Candidate, ...]) -> Decision:
    if not candidates:
        return combine((), loaded.digest)
    # Places that policies cannot tell apart are asked about once, however many nodes a site has.
    shapes = [shape_of(candidate) for candidate in candidates]
    answers = _ask_about(loaded, facts, tuple(dict.fromkeys(shapes)))
    verdicts = tuple(
        Verdict(placement=candidate.placement, permitted=permitted, policies=texts)
        for candidate, shape in zip(candidates, shapes, strict=True)
        for permitted, texts in (answers[shape],)
    )
    access = loaded.bundle.models.get(facts.model)
    return combine(verdicts, loaded.digest, access.necessary_outputs if access else ())


def _ask_about(loaded: _Loaded, facts: Facts, shapes: tuple[Shape, ...]) -> dict[Shape, _Answer]:
    context = context_of(facts)
    requests = [
        {"principal": CALLER, "action": PLACE, "resource": shape.uid, "context": context}
        for shape in shapes
    ]
    answers = _ask(loaded, requests, loaded.world.entities(facts, shapes))
    return dict(zip(shapes, answers, strict=True))


def api_resource(action: ApiAction, own: bool) -> dict[str, Any]:
    """Return the entity that an action of the API is about."""
    return work_entity(own) if action in ABOUT_WORK else API_ENTITY


def _authorize(loaded: _Loaded, caller: Caller, action: ApiAction, own: bool) -> Decision:
    resource = api_resource(action, own)
    request = {
        "principal": CALLER,
        "action": {"type": "Action", "id": action.value},
        "resource": resource["uid"],
        "context": "{}",
    }
    ((permitted, texts),) = _ask(loaded, [request], api_entities(caller, resource))
    verdict = Verdict(placement=action.value, permitted=permitted, policies=texts)
    return combine((verdict,), loaded.digest)


def _ask(loaded: _Loaded, requests: list[dict[str, Any]], entities: cedarpy.Entities) -> list[_Answer]:
    # Cedar could check each request against the schema for 35 us more. Requests are typed here, and
    # one that did not fit would make policies err, which refuses.
    results = cedarpy.is_authorized_batch(requests, loaded.policies, entities)
    return [_answer(loaded, result) for result in results]


def _answer(loaded: _Loaded, result: cedarpy.AuthzResult) -> _Answer:
    if result.diagnostics.errors:
        return False, (failed_evaluation(),)
    texts = (loaded.texts[reason] for reason in result.diagnostics.reasons)
    return result.allowed, tuple(sorted(texts, key=lambda text: text.id))
