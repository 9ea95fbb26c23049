"""Proofs say what the engine would decide of every request, and find what breaks an invariant."""

import random
import re
import shutil

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import (
    Agreement,
    ApiAction,
    BundleInvalid,
    CallerKind,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    RiskClass,
    Role,
    build_bundle,
    check_packs,
)
from policies.facts import Candidate
from policies.pack import PACKS
from policies.proofs import Unprovable, combinations, prove
from policies.proofs.requests import decide, request_at
from policies.proofs.workbench import Workbench

NAMES = ("base", "hipaa", "gdpr", "residency")
TABLE = {"US": ["US"], "US-NY": ["US-NY"], "FR": ["EEA"], "DE": ["DE"]}
ANY_FLAG = st.booleans()


def bundle(root=PACKS, names=NAMES, **changes):
    return build_bundle(names, **{"name": "n", "version": 1, "models": {}, "root": root, **changes})


@pytest.fixture
def packs(tmp_path):
    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    return root


def change(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (NAMES, TABLE),
        (NAMES, {}),
        ((*NAMES, "research"), TABLE),
        (("base",), {}),
        (("base", "hipaa"), {}),
        (("base", "gdpr"), {}),
        (("base", "residency"), {"US": ["US"], "US-NY": ["US-NY"]}),
    ],
)
def test_every_invariant_of_the_packs_holds(names, table):
    made = bundle(names=names, residency=table)
    proofs = list(prove(made))
    assert [proof.invariant.id for proof in proofs if not proof.holds] == []
    assert {proof.invariant.path.partition("/")[0] for proof in proofs} == set(names)
    # Without a row there is nothing that the table keeps, and so nothing to prove of it.
    about_nothing = {proof.invariant.id for proof in proofs if not proof.combinations}
    assert about_nothing <= (set() if table else {"residency-stays-in-table"})
    assert combinations(made) > 1_000_000


def sample(field, axes, seed, count):
    """Return random requests of a field, each with the index of its class."""
    chosen = random.Random(seed)
    for _ in range(count):
        points = [chosen.randrange(len(axis.labels)) for axis in axes.axes]
        index = tuple(int(axis.labels[point]) for axis, point in zip(axes.axes, points, strict=True))
        yield index, request_at(field.space, axes, points)


def decided(made, requests):
    """Return what one engine decides of them all: each has a model of its own."""
    models = {}
    for n, request in enumerate(requests):
        if request.facts is not None:
            models[f"m{n}" if request.facts.model.startswith("any") else request.facts.model] = (
                request.access
            )
    engine = Engine(msgspec.structs.replace(made, models=models))
    for n, request in enumerate(requests):
        if request.facts is None:
            yield engine.authorize(request.caller, request.action, own=request.own)
        else:
            name = f"m{n}" if request.facts.model.startswith("any") else request.facts.model
            facts = msgspec.structs.replace(request.facts, model=name)
            yield engine.decide(facts, (request.candidate,))


def test_a_class_is_decided_as_the_engine_decides_each_request_in_it():
    """Not only of the point that speaks for a class: of any other point in it too."""
    made = bundle(residency=TABLE)
    bench = Workbench(made)
    for field in bench.fields:
        judgement = bench.judge(field)
        forbids = {rule.text.id for rule in judgement.rules if rule.text.effect == "forbid"}
        determined = {rule.text.id: judgement.determined(n) for n, rule in enumerate(judgement.rules)}
        obliged = {name: judgement.obliged(name) for name in judgement.obligations}
        pairs = list(sample(field, judgement.axes, 7, 1000))
        decisions = decided(made, [request for _, request in pairs])
        for (index, request), decision in zip(pairs, decisions, strict=True):
            assert judgement.permitted.at(index) is decision.allowed, request
            decisive = {name for name, mask in determined.items() if mask.at(index)}
            decisive = (decisive & forbids) or decisive or {"default-deny"}
            assert decisive == set(decision.policies), request
            assert [name for name, mask in obliged.items() if mask.at(index)] == list(
                decision.obligations
            )


HEADER = '@id("own")\n@title("t")\n@cite("c")\n'
IN_TABLE = """(context.jurisdiction has processed_in &&
resource.jurisdiction in context.jurisdiction.processed_in)"""
ATOMS = st.sampled_from(
    [
        "context.consent",
        "context.emergency",
        'context.purpose == "TREAT"',
        '["phi", "limited"].contains(context.data_class)',
        'context.data_class != "phi"',
        'principal in Role::"app"',
        'principal in [Role::"app", Role::"billing"]',
        "principal in context.model.roles",
        'context.model.roles.contains(Role::"device")',
        "context.model.purposes.contains(context.purpose)",
        'context.model == Model::"sepsis"',
        'context.jurisdiction in Jurisdiction::"EEA"',
        'context.jurisdiction == Jurisdiction::"US-CA"',
        "resource.jurisdiction in context.jurisdiction",
        "context.jurisdiction has processed_in",
        IN_TABLE,
        '(resource is Node && resource.agreements.contains("baa"))',
        'principal.kind == "device"',
        'context.model.risk == "IV"',
        "context.model.data_classes.contains(context.data_class)",
        '(principal.organisation == "st-anna" && principal.site != "east")',
        "(resource is Node && resource.operator == principal.organisation)",
        "(resource is Node && resource.attested)",
        "(resource is Device && resource.holds_subject)",
        "(resource is Node && !resource.on_premises)",
        "9223372036854775807 + 1 > 0",
        "true",
    ]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} && {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} || {two[1]})"),
        st.tuples(inner, inner, inner).map(
            lambda three: f"(if {three[0]} then {three[1]} else {three[2]})"
        ),
    ),
    max_leaves=5,
)
SCOPES = st.sampled_from(["resource", "resource is Node", "resource is Device"])
POLICIES = st.lists(
    st.tuples(
        st.sampled_from(["permit", "forbid"]), SCOPES, st.sampled_from(["when", "unless"]), CONDITIONS
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "packs"
    shutil.copytree(PACKS / "gdpr", root / "gdpr")
    (root / "gdpr/gdpr.cedar").unlink()
    (root / "gdpr/invariants.cedar").unlink()
    (root / "base").mkdir()
    for name in ("pack.toml", "data.toml", "base.cedarschema"):
        shutil.copy(PACKS / "base" / name, root / "base" / name)
    return root


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies=POLICIES, seed=st.integers(0, 1000))
def test_whatever_the_policies_their_classes_are_decided_as_the_engine_decides(
    skeleton, policies, seed
):
    own = skeleton / "gdpr/own.cedar"
    own.write_text(
        "\n".join(
            HEADER.replace("own", f"own-{n}")
            + f'{effect} (principal, action == Action::"place", {scope}) {kind} {{ {condition} }};'
            for n, (effect, scope, kind, condition) in enumerate(policies)
        )
    )
    made = bundle(skeleton, ("base", "gdpr"), residency=TABLE)
    bench = Workbench(made)
    judgement = bench.judge(bench.place)
    axes = judgement.axes
    pairs = [
        (index, request)
        for index, request in sample(bench.place, axes, seed, 40)
        # One engine knows a model by one set of roles: those that policies name are asked elsewhere.
        if request.facts.model.startswith("any")
    ]
    decisions = decided(made, [request for _, request in pairs])
    for (index, request), decision in zip(pairs, decisions, strict=True):
        assert judgement.permitted.at(index) is decision.allowed, request


CODES = st.from_regex(r"\A[A-Z]{2}(-[A-Z0-9]{1,3})?\Z") | st.sampled_from(
    ["US", "US-CA", "US-NY", "US-TX", "DE", "DE-BY", "FR", "CH", "JP", "PR", "XZ", "XZ-ZZZ"]
)


def stand_in(code, named, codes, taken):
    """Return the code that stands for `code` in proofs, another than those that are taken."""
    if code in taken:
        return taken[code]
    country, _, state = code.partition("-")
    if code not in named:
        if country not in {each.partition("-")[0] for each in named}:
            country = stand_in_country(country, codes, taken)
        choices = [country]
        if state:
            choices = [each for each in codes if each.startswith(f"{country}-") and each not in named]
        code = next(each for each in choices if each not in taken.values())
    return code


def stand_in_country(country, codes, taken):
    for other, its in taken.items():
        if other.partition("-")[0] == country:
            return its.partition("-")[0]
    used = {its.partition("-")[0] for its in taken.values()}
    return next(code for code in ("XZ", "XY", "XX") if code in codes and code not in used)


@pytest.fixture(scope="module")
def open_model():
    access = ModelAccess(roles=tuple(Role), purposes=tuple(Purpose))
    made = bundle(residency=TABLE, models={"sepsis": access})
    return Workbench(made).place.space, Engine(made)


@settings(max_examples=100, deadline=None)
@given(home=CODES, place=CODES, purpose=st.sampled_from(Purpose), data=st.sampled_from(DataClass))
def test_two_jurisdictions_stand_for_all_that_no_bundle_names(open_model, home, place, purpose, data):
    space, engine = open_model
    taken = {}
    for code in (home, place):
        taken[code] = stand_in(code, space.named, space.codes, taken)
    assert set(taken.values()) <= set(space.codes)

    def ask(one, other):
        facts = Facts(
            roles=frozenset(Role), model="sepsis", jurisdiction=one, purpose=purpose, data_class=data
        )
        node = Candidate(placement="node:n", kind=PlacementKind.NODE, jurisdiction=other)
        decision = engine.decide(facts, (node,))
        return decision.permitted, decision.policies

    assert ask(home, place) == ask(taken[home], taken[place])


TRANSFER = '!(resource.jurisdiction in Jurisdiction::"EEA") &&'
NO_BAA = '!(resource.agreements.contains("baa"))'
BREAKS = [
    ("gdpr/gdpr.cedar", TRANSFER, "false &&", "gdpr-stays"),
    ("gdpr/gdpr.cedar", '@obligation("review")\n', "", "gdpr-emergency-reviewed"),
    ("residency/residency.cedar", "!context.consent", "context.consent", "base-more-consent"),
    ("hipaa/hipaa.cedar", NO_BAA, NO_BAA[1:], "base-more-agreements"),
    ("hipaa/hipaa.cedar", 'context.purpose == "TREAT" &&', "", "hipaa-minimum"),
    ("residency/residency.cedar", "!context.consent", "context.consent", "residency-stays-on-device"),
    ("base/models.cedar", "context.emergency ||", "false ||", "base-emergency-purpose"),
    ("base/api.cedar", 'principal in Role::"compliance"', "principal", "base-log"),
]


@pytest.mark.parametrize(("file", "before", "after", "invariant"), BREAKS)
def test_what_breaks_an_invariant_is_shown_by_the_least_request_that_does(
    packs, file, before, after, invariant
):
    change(packs / file, before, after)
    if invariant == "hipaa-minimum":  # the forbid that would refuse it just the same
        change(packs / file, 'context.data_class == "phi"', 'context.data_class == "synthetic"')
        change(packs / file, 'unless { principal in Role::"billing" }', "unless { true }")
    made = bundle(packs, residency=TABLE)
    broken = {proof.invariant.id: proof for proof in prove(made) if not proof.holds}
    assert invariant in broken
    proof = broken[invariant]
    assert proof.violations >= len(proof.counterexamples) > 0
    for example in proof.counterexamples:
        assert example.decision == decide(made, example.request)
        assert example.decision.policies
        assert example.request.lines()


def test_a_counterexample_departs_no_further_than_it_must(packs):
    change(packs / "gdpr/gdpr.cedar", TRANSFER, "false &&")
    proof = next(p for p in prove(bundle(packs)) if p.invariant.id == "gdpr-stays")
    least = proof.counterexamples[0]
    assert least.request.caller.roles == {Role.CLINICIAN}
    assert least.request.access == ModelAccess(
        roles=(Role.CLINICIAN,),
        purposes=(Purpose.TREAT,),
        data_classes=(DataClass.PHI,),
        risk=RiskClass.I,
    )
    assert least.request.facts.data_class is DataClass.PHI
    assert least.request.facts.carries_payload
    assert least.decision.policies == ("gdpr-care",)
    assert least.raised is None


def test_an_invariant_about_a_fact_shows_both_requests(packs):
    change(packs / "hipaa/hipaa.cedar", NO_BAA, NO_BAA[1:])
    proof = next(p for p in prove(bundle(packs)) if p.invariant.id == "base-more-agreements")
    least = proof.counterexamples[0]
    request, decision = least.raised
    assert least.decision.allowed
    assert not decision.allowed
    assert request.facts == least.request.facts
    assert not least.request.candidate.agreements
    signed = frozenset({Agreement.BAA})
    assert request.candidate == msgspec.structs.replace(least.request.candidate, agreements=signed)


def test_invariants_are_part_of_the_signed_bundle(packs):
    made = bundle(packs)
    change(packs / "gdpr/invariants.cedar", '@title("Anon', '@title("anon')
    assert bundle(packs).digest() != made.digest()


OWN = (
    '@id("own")\n@title("t")\n@cite("c")\n{}permit (principal, action == Action::"place", resource);\n'
)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("", r"4:1: every policy needs @invariant"),
        ('@invariant("sometimes")\n', r"4:1: @invariant is one of never, always"),
        ('@invariant("never")\n', r"4:1: @invariant\(never\) stands on a forbid"),
        ('@invariant("obliges")\n', r"@obligation belongs to obliges and only"),
        (
            '@invariant("obliges")\n@obligation("revue")\n',
            r"5:14: the obligation 'revue' means nothing",
        ),
        ('@invariant("monotone")\n', r"@fact belongs to monotone and ignores"),
        ('@invariant("monotone")\n@fact("mood")\n', r"5:1: @fact is one of adequacy, agreements"),
        ('@invariant("always")\n@shadow("x")\n', r"5:1: @shadow means nothing here"),
    ],
)
def test_an_invariant_that_claims_nothing_is_found_with_its_place(packs, annotations, message):
    (packs / "gdpr/invariants.cedar").write_text(OWN.format(annotations))
    found = "\n".join(map(str, check_packs(NAMES, root=packs)))
    assert re.search(f"gdpr/invariants.cedar:{message}" if message[0].isdigit() else message, found), (
        found
    )
    with pytest.raises(BundleInvalid):
        bundle(packs)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('principal == Caller::"caller"', "names one Caller"),
        ("context == context", "one condition reads .* together"),
        ('principal.site like "east*"', "reads site other than by"),
    ],
)
def test_what_cannot_be_enumerated_is_refused_with_its_place(packs, condition, message):
    file = packs / "residency/residency.cedar"
    file.write_text(file.read_text().replace("context.carries_payload", condition))
    with pytest.raises(Unprovable, match=message):
        list(prove(bundle(packs)))


def test_every_api_action_is_among_the_requests_that_are_proved():
    field = Workbench(bundle()).api
    assert set(field.space.domains["action"].values) == set(ApiAction)
    assert field.space.size == len(ApiAction) * 2 ** len(Role) * len(CallerKind) * 4**2 * 2
