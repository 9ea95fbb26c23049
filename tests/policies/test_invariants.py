"""What no combination of facts may break, asked of every combination.

The model is open to every role and purpose, so that only the law and the site's rules can refuse.
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
    *(frozenset({role}) for role in Role),
    frozenset({Role.BILLING, Role.RESEARCHER}),
    frozenset({Role.APP, Role.CLINICIAN}),
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
OUTSIDE_GDPR = {"node:us", "node:cloud", "node:cn"}
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


def identifiable(facts):
    return facts.data_class in (DataClass.PHI, DataClass.LIMITED)


def breaks_glass(facts):
    return facts.emergency and facts.purpose is Purpose.ETREAT and Role.CLINICIAN in facts.roles


def test_nobody_without_a_role_is_permitted_anything(decisions):
    assert not any(decision.permitted for facts, decision in decisions if not facts.roles)


def test_identifiable_data_of_the_eea_leaves_it_only_for_adequate_protection(decisions):
    for facts, decision in decisions:
        if facts.jurisdiction == "DE" and identifiable(facts) and not breaks_glass(facts):
            assert not OUTSIDE_GDPR & set(decision.permitted)
            assert "GDPR Art. 44" in "; ".join(decision.citations)


def test_what_a_device_holds_leaves_it_only_by_consent_or_in_an_emergency(decisions):
    for facts, decision in decisions:
        held = facts.on_device and identifiable(facts) and not facts.consent
        if held and not breaks_glass(facts):
            assert not NODES.keys() & set(decision.permitted)


def test_a_request_that_carries_nothing_runs_on_no_node(decisions):
    for facts, decision in decisions:
        if not facts.carries_payload:
            assert not NODES.keys() & set(decision.permitted)


def test_nothing_runs_on_a_device_of_somebody_else(decisions):
    assert not any("device:other" in decision.permitted for _, decision in decisions)


def test_identifiable_us_data_runs_at_no_operator_without_an_agreement(decisions):
    for facts, decision in decisions:
        if facts.jurisdiction == "US-CA" and identifiable(facts):
            assert "node:cloud" not in decision.permitted


def test_data_that_no_pack_covers_runs_nowhere(decisions):
    assert not any(decision.permitted for facts, decision in decisions if facts.jurisdiction == "CN")


def test_whoever_breaks_the_glass_is_a_clinician_and_is_reviewed(decisions):
    for facts, decision in decisions:
        if facts.purpose is Purpose.ETREAT and decision.permitted:
            assert breaks_glass(facts)
            assert decision.break_glass or not identifiable(facts)
        if decision.break_glass:
            assert breaks_glass(facts)


def test_consent_and_roles_never_take_away_what_was_permitted(decisions):
    """Saying less never gains anything: what is permitted without consent is permitted with it."""
    permitted = {facts: set(decision.permitted) for facts, decision in decisions}
    for facts, places in permitted.items():
        if not facts.consent:
            fields = {name: getattr(facts, name) for name in Facts.__struct_fields__}
            assert places <= permitted[Facts(**{**fields, "consent": True})]


def test_data_that_is_closer_to_a_person_is_never_freer(decisions):
    """PHI is what missing facts become, so nothing may be permitted of it that is not of the others."""
    permitted = {facts: set(decision.permitted) for facts, decision in decisions}
    for facts, places in permitted.items():
        if facts.data_class is DataClass.PHI:
            fields = {name: getattr(facts, name) for name in Facts.__struct_fields__}
            for looser in (DataClass.LIMITED, DataClass.DEIDENTIFIED, DataClass.SYNTHETIC):
                assert places <= permitted[Facts(**{**fields, "data_class": looser})]


def test_every_refusal_cites_a_rule_and_every_decision_is_a_sentence(decisions):
    for facts, decision in decisions:
        for verdict in decision.verdicts:
            assert verdict.policies, (facts, verdict.placement)
            assert all(text.citation for text in verdict.policies)
            assert all((text.effect == "permit") is verdict.permitted for text in verdict.policies)
        sentence = explain(decision, facts)
        assert sentence.startswith("Permitted" if decision.permitted else "Refused")
        assert "device:" not in sentence
