import pytest

from policies import (
    Agreement,
    ApiAction,
    Caller,
    CallerKind,
    Candidate,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    RiskClass,
    Role,
    build_bundle,
    explain,
)

PACKS = ("base", "hipaa", "gdpr", "residency")
EVERYONE = ModelAccess(
    roles=(Role.CLINICIAN, Role.RESEARCHER, Role.APP, Role.DEVICE),
    purposes=(Purpose.TREAT, Purpose.ETREAT, Purpose.HRESCH),
    risk=RiskClass.II,
)


def node(name: str, jurisdiction: str, **attributes) -> Candidate:
    return Candidate(
        placement=f"node:{name}", kind=PlacementKind.NODE, jurisdiction=jurisdiction, **attributes
    )


US, DE, JP = node("us", "US-CA"), node("de", "DE"), node("jp", "JP", adequacy=True)
PHONE = Candidate(
    placement="device:phone", kind=PlacementKind.DEVICE, jurisdiction="US-CA", holds_subject=True
)
CLINICIAN = frozenset({Role.CLINICIAN})
DEVICE = {"roles": frozenset({Role.DEVICE}), "kind": CallerKind.DEVICE}
BAA = frozenset({Agreement.BAA})


@pytest.fixture(scope="module")
def engine():
    return Engine(build_bundle(PACKS, name="clinic", version=1, models={"sepsis": EVERYONE}))


def facts(**changes) -> Facts:
    return Facts(**{"roles": CLINICIAN, "model": "sepsis", "jurisdiction": "US-CA", **changes})


CASES = {
    "US PHI runs on the US node": (
        facts(), (US,), ("node:us",), "hipaa-treatment", ()),
    "DE PHI never reaches a US node": (
        facts(jurisdiction="DE"), (US,), (), "gdpr-transfer", ()),
    "DE PHI runs on the DE node beside it": (
        facts(jurisdiction="DE"), (US, DE), ("node:de",), "gdpr-care", ()),
    "DE PHI may go where protection is adequate": (
        facts(jurisdiction="DE"), (JP,), ("node:jp",), "gdpr-care", ()),
    "what a device holds stays on it": (
        facts(on_device=True, carries_payload=False), (US, PHONE), ("device:phone",),
        "residency-on-device", ()),
    "with consent it may leave": (
        facts(on_device=True, consent=True), (US, PHONE), ("node:us", "device:phone"),
        "hipaa-treatment", ()),
    "a request without data runs where the data is, consent or not": (
        facts(on_device=True, consent=True, carries_payload=False), (US, PHONE), ("device:phone",),
        "residency-nothing-to-run-on", ()),
    "de-identified data runs anywhere": (
        facts(jurisdiction="DE", data_class=DataClass.DEIDENTIFIED), (US, DE, JP),
        ("node:us", "node:de", "node:jp"), "gdpr-anonymous", ()),
    "an emergency breaks the glass, to be reviewed": (
        facts(jurisdiction="DE", purpose=Purpose.ETREAT, emergency=True), (US,), ("node:us",),
        "gdpr-vital-interests", ("review",)),
    "an emergency is the clinician's to declare": (
        facts(roles=frozenset({Role.BILLING}), purpose=Purpose.ETREAT, emergency=True), (US,), (),
        "base-break-glass-roles", ()),
    "ETREAT without an emergency is no key": (
        facts(purpose=Purpose.ETREAT), (US,), (), "base-break-glass-roles", ()),
    "a role without right to the model is refused": (
        facts(roles=frozenset({Role.BILLING}), purpose=Purpose.HPAYMT), (US,), (),
        "base-model-roles", ()),
    "a model that nobody registered is refused": (
        facts(model="unheard-of"), (US,), (), "base-model-roles", ()),
    "a foreign operator needs an agreement": (
        facts(), (node("cloud", "US", on_premises=False),), (), "hipaa-business-associate", ()),
    "an operator with an agreement may run PHI": (
        facts(), (node("cloud", "US", on_premises=False, agreements=BAA),), ("node:cloud",),
        "hipaa-treatment", ()),
    "a device runs models on its own data": (
        facts(**DEVICE, on_device=True, own_device=True), (US, PHONE),
        ("device:phone",), "hipaa-own-device", ()),
    "a device runs nothing on another": (
        facts(**DEVICE, on_device=True), (US, PHONE), (), "base-own-device", ()),
    "research on identifiable data needs authorization": (
        facts(roles=frozenset({Role.RESEARCHER}), purpose=Purpose.HRESCH), (US,), (),
        "hipaa-research", ()),
    "and runs with it": (
        facts(roles=frozenset({Role.RESEARCHER}), purpose=Purpose.HRESCH, consent=True), (US,),
        ("node:us",), "hipaa-research-authorization", ("no_cache",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_decisions(engine, case):
    asked, candidates, permitted, policy, obligations = CASES[case]
    decision = engine.decide(asked, candidates)
    assert decision.permitted == permitted
    assert policy in decision.policies
    assert decision.obligations == obligations
    assert decision.bundle_digest == engine.bundle_digest
    sentence = explain(decision, asked)
    assert sentence.endswith(".")
    assert decision.citations
    assert decision.citations[0] in sentence


def test_api_actions_are_denied_by_default(engine):
    for action in ApiAction:
        assert not engine.authorize(Caller(roles=frozenset()), action).allowed
    assert engine.authorize(Caller(roles=frozenset({Role.COMPLIANCE})), ApiAction.AUDIT_READ).allowed
    assert not engine.authorize(Caller(roles=CLINICIAN), ApiAction.AUDIT_READ).allowed
    assert not engine.authorize(Caller(roles=CLINICIAN), ApiAction.CHANNEL_OPEN).allowed
    assert engine.authorize(Caller(roles=frozenset({Role.DEVICE})), ApiAction.CHANNEL_OPEN).allowed


def test_a_decision_is_remembered_until_the_bundle_changes(engine):
    first = engine.decide(facts(), (US,))
    assert engine.decide(facts(), (US,)) is first
    changed = build_bundle(PACKS, name="clinic", version=2, models={})
    own = Engine(engine.bundle)
    own.decide(facts(), (US,))
    own.replace(changed)
    assert own.decide(facts(), (US,)).permitted == ()
