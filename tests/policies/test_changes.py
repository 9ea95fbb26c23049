"""What changes between bundles, and what a decision hangs on, agree with what the engine decides."""

import itertools
import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import (
    ApiAction,
    Caller,
    CallerKind,
    Candidate,
    DataClass,
    Engine,
    Facts,
    FactsInvalid,
    ModelAccess,
    PlacementKind,
    Purpose,
    RiskClass,
    Role,
    build_bundle,
)
from policies.pack import PACKS
from policies.proofs import changed_data, describe, differences, explain_request
from policies.proofs.regions import boxes
from policies.proofs.space import UNNAMED

NAMES = ("base", "hipaa", "gdpr", "residency")
TABLE = {"US-NY": ["US-NY"], "DE": ["DE"]}
MODELS = {
    "sepsis": ModelAccess(
        roles=(Role.CLINICIAN, Role.RESEARCHER, Role.APP, Role.DEVICE),
        purposes=(Purpose.TREAT, Purpose.ETREAT, Purpose.HRESCH),
        risk=RiskClass.II,
    )
}


def bundle(root=PACKS, **changes):
    given = {"name": "n", "version": 1, "models": MODELS, "residency": TABLE, **changes}
    return build_bundle(NAMES, root=root, **given)


@pytest.fixture
def packs(tmp_path):
    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    return root


def change(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1))
def test_boxes_cover_exactly_what_they_should(one, other):
    bits = [(one & (other | one >> 3)) >> n & 1 for n in range(24)]
    mask = np.array(bits, dtype=np.bool_).reshape(2, 3, 4)
    covered = np.zeros_like(mask)
    for box in boxes(mask):
        assert mask[np.ix_(*box)].all()
        covered[np.ix_(*box)] = True
    assert (covered == mask).all()


def test_nothing_changes_between_equal_bundles():
    assert differences(bundle(), bundle(version=2)) == ()
    assert differences(bundle(models={}), bundle(models={})) == ()


def test_a_change_of_the_api_is_counted_as_the_engine_decides(packs):
    change(packs / "base/api.cedar", 'principal in Role::"operator"', 'principal in Role::"compliance"')
    before, after = bundle(), bundle(packs)
    engines = Engine(before), Engine(after)
    counted = {(False, True): 0, (True, False): 0}
    for chosen in itertools.product((False, True), repeat=len(Role)):
        roles = frozenset(role for role, own in zip(Role, chosen, strict=True) if own)
        for action in ApiAction:
            pair = tuple(engine.authorize(Caller(roles=roles), action).allowed for engine in engines)
            if pair[0] != pair[1]:
                counted[pair] += 1
    changes = differences(before, after)
    assert [change.api for change in changes] == [True, True]
    assert [(change.before.permitted, change.after.permitted) for change in changes] == list(counted)
    # Whatever kind of caller it is, of whichever site and organisation, and whosever work it is.
    others = len(CallerKind) * (1 + len(UNNAMED)) ** 2 * 2
    assert [change.combinations for change in changes] == [n * others for n in counted.values()]


def test_what_is_newly_permitted_comes_first_and_says_of_whom_and_where(packs):
    adequate = '!(resource.jurisdiction in Jurisdiction::"GDPR-ADEQUATE")'
    change(packs / "gdpr/gdpr.cedar", adequate, adequate.replace("GDPR-ADEQUATE", "US"))
    freer, stricter = differences(bundle(residency={}), bundle(packs, residency={}))
    assert (str(freer.before), str(freer.after)) == ("refused", "permitted")
    assert (str(stricter.before), str(stricter.after)) == ("permitted", "refused")
    assert freer.before_policies == stricter.after_policies == ("gdpr-transfer",)
    assert freer.after_policies == ("gdpr-care", "gdpr-consent")
    assert describe(freer.regions[0]) == (
        "roles: with clinician; model: sepsis; data_class: phi, limited; purpose: TREAT; consent: yes;"
        " emergency: no; on_device: no; carries_payload: yes; jurisdiction: EEA;"
        " place: node (not adequacy not scc not bcr); place.jurisdiction: US"
    )
    assert all(region["place.jurisdiction"] == ("GDPR-ADEQUATE",) for region in stricter.regions)


def test_a_change_of_reasons_only_is_shown_where_policies_are_asked_for(packs):
    change(packs / "gdpr/gdpr.cedar", '@id("gdpr-anonymous")', '@id("gdpr-nobody")')
    assert differences(bundle(), bundle(packs)) == ()
    changes = differences(bundle(), bundle(packs), policies=True)
    assert changes
    for each in changes:
        assert "gdpr-anonymous" in each.before.policies
        renamed = [name.replace("gdpr-anonymous", "gdpr-nobody") for name in each.before.policies]
        assert sorted(renamed) == list(each.after.policies)


def test_an_obligation_and_a_model_are_part_of_a_decision(packs):
    change(packs / "hipaa/hipaa.cedar", '@obligation("review; ', '@obligation("review; notify; ')
    (more,) = differences(bundle(), bundle(packs))
    assert str(more.after) == "permitted with no_cache, notify, retain(2192), review"
    (gone, *_) = differences(bundle(), bundle(models={}))
    assert not gone.after.permitted
    refusing = {"base-model-data", "base-model-purposes", "base-model-roles"}
    assert refusing <= set(gone.after_policies)
    assert gone.regions[0]["model"] == ("sepsis",)


def test_a_change_of_necessary_outputs_is_shown_though_no_decision_changes():
    access = ModelAccess(roles=(Role.BILLING,), purposes=(Purpose.HPAYMT,))
    named = msgspec.structs.replace(access, necessary_outputs=("risk", "class"))
    before = bundle(models={"readmission": access, "same": named})
    after = bundle(models={"readmission": named, "same": named})
    assert differences(before, after) == ()
    assert changed_data(before, after) == ("necessary outputs of readmission: none -> risk, class",)


US = Candidate(placement="node:us", kind=PlacementKind.NODE, jurisdiction="US-CA")
DE = Candidate(placement="node:de", kind=PlacementKind.NODE, jurisdiction="DE")
CLOUD = Candidate(placement="node:c", kind=PlacementKind.NODE, jurisdiction="US", on_premises=False)
PHONE = Candidate(
    placement="device:p", kind=PlacementKind.DEVICE, jurisdiction="US", holds_subject=True
)
FACTS = st.builds(
    Facts,
    roles=st.frozensets(st.sampled_from([Role.CLINICIAN, Role.APP, Role.BILLING]), max_size=2),
    model=st.sampled_from(["sepsis", "unheard-of"]),
    jurisdiction=st.sampled_from(["US-CA", "US-NY", "DE", "FR", "JP", "BR-SP"]),
    data_class=st.sampled_from(DataClass),
    purpose=st.sampled_from(Purpose),
    consent=st.booleans(),
    emergency=st.booleans(),
    on_device=st.booleans(),
    carries_payload=st.booleans(),
)
PLACES = st.sampled_from([(US,), (US, DE), (CLOUD, PHONE)])


def changed(facts, fact, value):
    """Return facts with one changed as an explanation says, or None where it names a group."""
    if fact == "roles":
        word, role = value.split()
        others = facts.roles - {Role(role)}
        return msgspec.structs.replace(facts, roles=others | {Role(role)} if word == "with" else others)
    if fact in ("consent", "emergency", "on_device", "own_device", "carries_payload"):
        return msgspec.structs.replace(facts, **{fact: value == "yes"})
    if fact == "jurisdiction":
        known = {"HIPAA": "PR", "EEA": "AT", "GDPR-ADEQUATE": "CH", "GOVERNED": "AT"}
        value = known.get(value, value.removesuffix(" (not its states)"))
        value = {"any other country": "XZ"}.get(value, value)
        if value.startswith("any other state of "):
            value = f"{value.split()[-1]}-ZZZ"
    if fact == "kind":
        value = CallerKind(value)
    if fact == "model" and value == "any that is not registered":
        value = "unheard-of"
    return msgspec.structs.replace(facts, **{fact: value})


def single_changes(facts):
    for role in Role:
        yield msgspec.structs.replace(facts, roles=facts.roles ^ {role})
    for name, values in {
        "model": ("sepsis", "unheard-of"),
        "data_class": DataClass,
        "purpose": Purpose,
        "consent": (False, True),
        "emergency": (False, True),
        "on_device": (False, True),
        "own_device": (False, True),
        "kind": CallerKind,
        "carries_payload": (False, True),
        "jurisdiction": ("US-CA", "US-NY", "US", "PR", "DE", "AT", "CH", "XZ"),
    }.items():
        for value in values:
            yield msgspec.structs.replace(facts, **{name: value})


@settings(max_examples=12, deadline=None)
@given(facts=FACTS, places=PLACES)
def test_what_is_said_to_change_a_decision_changes_it_and_nothing_nearer_does(facts, places):
    made = bundle()
    engine = Engine(made)
    explained = explain_request(made, facts, places)
    assert explained.decision == engine.decide(facts, places)
    for matter in explained.mattered:
        for value in matter.change.values:
            decision = engine.decide(changed(facts, matter.change.fact, value), places)
            assert decision.permitted == matter.permitted
            assert decision.obligations == matter.obligations
    allowed = explained.decision.allowed
    nearest = len(explained.flips[0]) if explained.flips else None
    for flip in explained.flips:
        assert len(flip) == nearest
        other = facts
        for step in flip:
            other = changed(other, step.fact, step.values[0])
        assert engine.decide(other, places).allowed is not allowed
    if nearest != 1:
        singles = [engine.decide(each, places).allowed for each in single_changes(facts)]
        assert set(singles) == {allowed}


def test_a_request_that_nothing_can_permit_has_no_flip():
    phone = msgspec.structs.replace(PHONE, holds_subject=False)
    facts = Facts(roles=frozenset({Role.DEVICE}), model="sepsis", jurisdiction="US-CA")
    explained = explain_request(bundle(), facts, (phone,))
    assert explained.flips == ()
    assert explained.mattered == ()
    assert "place" in explained.looked_at
    nowhere = explain_request(bundle(), facts, ())
    assert nowhere.sentence.endswith("because the site has no place that could run it.")


def test_the_facts_that_mattered_are_named_with_what_they_would_do():
    facts = Facts(roles=frozenset({Role.CLINICIAN}), model="sepsis", jurisdiction="FR")
    explained = explain_request(bundle(), facts, (US,))
    assert [str(step) for step in explained.flips[0]] == ["data_class: deidentified or synthetic"]
    (data, *_) = explained.mattered
    assert (str(data.change), data.permitted) == ("data_class: deidentified or synthetic", ("node:us",))
    assert {"data_class", "jurisdiction", "place.jurisdiction"} <= set(explained.looked_at)


@pytest.mark.parametrize(("home", "place"), [("Germany", "DE"), ("DE", "EEA"), ("", "DE")])
def test_a_jurisdiction_outside_iso_3166_is_refused(home, place):
    facts = Facts(roles=frozenset({Role.CLINICIAN}), model="sepsis", jurisdiction=home)
    node = msgspec.structs.replace(US, jurisdiction=place)
    with pytest.raises(FactsInvalid, match="ISO 3166"):
        explain_request(bundle(), facts, (node,))
