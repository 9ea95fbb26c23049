"""Every decision says why, whatever the facts.

The model is open to every role and purpose, so that only the law and the site's rules can refuse. What
no combination of facts may break is declared by the packs and proved in `test_proofs.py`.
"""

import itertools

import pytest

from policies import (
    Candidate,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    Role,
    build_bundle,
    explain,
)

PACKS = ("base", "hipaa", "gdpr", "residency")
FLAGS = (False, True)
ROLES = (
    frozenset(),
    *(frozenset({role}) for role in (Role.CLINICIAN, Role.RESEARCHER, Role.DEVICE)),
    frozenset({Role.APP, Role.BILLING}),
)


def node(name, jurisdiction, **attributes):
    return Candidate(
        placement=f"node:{name}", kind=PlacementKind.NODE, jurisdiction=jurisdiction, **attributes
    )


NODES = {
    candidate.placement: candidate
    for candidate in (
        node("us", "US-CA"),
        node("cloud", "US", on_premises=False),
        node("de", "DE"),
        node("ch", "CH"),
        node("cn", "CN"),
    )
}
DEVICES = {
    f"device:{name}": Candidate(
        placement=f"device:{name}", kind=PlacementKind.DEVICE, jurisdiction=home, holds_subject=holds
    )
    for name, home, holds in (("own", "US-CA", True), ("abroad", "CN", True), ("other", "DE", False))
}
EVERYWHERE = (*NODES.values(), *DEVICES.values())
HOMES = ("US-CA", "DE", "CN")


def every_fact():
    for roles, home, data_class, purpose, *flags in itertools.product(
        ROLES, HOMES, DataClass, Purpose, FLAGS, FLAGS, FLAGS, FLAGS
    ):
        consent, emergency, on_device, carries_payload = flags
        yield Facts(
            roles=roles,
            model="sepsis",
            jurisdiction=home,
            data_class=data_class,
            purpose=purpose,
            consent=consent,
            emergency=emergency,
            on_device=on_device,
            carries_payload=carries_payload,
        )


@pytest.fixture(scope="module")
def decisions():
    access = ModelAccess(roles=tuple(Role), purposes=tuple(Purpose))
    engine = Engine(build_bundle(PACKS, name="clinic", version=1, models={"sepsis": access}))
    made = [(facts, engine.decide(facts, EVERYWHERE)) for facts in every_fact()]
    assert len(made) == len(ROLES) * len(HOMES) * 4 * 5 * 16
    return made


def test_every_refusal_cites_a_rule_and_every_decision_is_a_sentence(decisions):
    for facts, decision in decisions:
        for verdict in decision.verdicts:
            assert verdict.policies, (facts, verdict.placement)
            assert all(text.citation for text in verdict.policies)
            assert all((text.effect == "permit") is verdict.permitted for text in verdict.policies)
        sentence = explain(decision, facts)
        assert sentence.startswith("Permitted" if decision.permitted else "Refused")
        assert "device:" not in sentence
