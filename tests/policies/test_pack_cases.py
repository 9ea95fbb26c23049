import re
import shutil

import pytest

from policies import (
    BundleInvalid,
    CasesInvalid,
    build_bundle,
    check_packs,
    run_cases,
    untested_policies,
)
from policies.pack import PACKS, SHIPPED
from policies.yaml_text import read_yaml

NAMES = SHIPPED
GDPR, DATA, SCHEMA = "gdpr/gdpr.cedar", "gdpr/data.toml", "base/base.cedarschema"


@pytest.fixture
def packs(tmp_path):
    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    return root


def change(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


def test_every_case_comes_out_as_the_packs_say_and_no_policy_is_untested():
    run = run_cases(NAMES)
    assert [result for result in run.results if not result.passed] == []
    assert run.passed
    assert run.untested == ()
    assert {result.pack for result in run.results} == set(NAMES)


@pytest.mark.parametrize(
    "names", [NAMES, *((("base",) if n == "base" else ("base", n)) for n in NAMES)]
)
def test_the_packs_that_ship_have_no_findings(names):
    assert check_packs(names) == ()


IDLE = """@id("idle")
@title("t")
@cite("c")
{} (
  principal,
  action == Action::"place",
  resource
)
when {{ {} }};
"""


@pytest.mark.parametrize(
    ("effect", "condition", "finding"),
    [
        (
            "permit",
            'context.purpose == "TREAT" && context.purpose == "HRESCH"',
            "idle/idle.cedar:4:1: idle is unreachable",
        ),
        ("permit", "!context.carries_payload && resource is Node", "idle is unreachable"),
        ("forbid", "!(principal in context.model.roles)", "idle/idle.cedar:4:1: idle is shadowed"),
        ("forbid", 'context.data_class == "synthetic"', None),
    ],
)
def test_a_policy_that_does_nothing_is_found(packs, effect, condition, finding):
    (packs / "idle").mkdir()
    (packs / "idle/pack.toml").write_text('name = "idle"\nrequires = ["base"]\n')
    (packs / "idle/idle.cedar").write_text(IDLE.format(effect, condition))
    found = [str(each) for each in check_packs((*NAMES, "idle"), root=packs)]
    # What duplicates a policy shadows it as well.
    own = [each for each in found if " idle is " in each]
    assert len(own) == (finding is not None)
    assert all(finding in each for each in own)
    if finding and "shadowed" in finding:
        text = (packs / "idle/idle.cedar").read_text()
        (packs / "idle/idle.cedar").write_text(text.replace("forbid", '@redundant("why")\nforbid'))
        found = [str(each) for each in check_packs((*NAMES, "idle"), root=packs)]
        assert not any(" idle is " in each for each in found)


def test_a_pack_may_supersede_a_policy_of_another_but_not_one_that_still_decides(packs):
    """Seen to fail with `superseded` left empty, and with the test for effect left out."""
    manifest = packs / "research/pack.toml"
    assert check_packs(NAMES, root=packs) == ()
    change(manifest, "hipaa-research-authorization", "hipaa-treatment")
    found = sorted(each.message.partition(" ")[0] for each in check_packs(NAMES, root=packs))
    assert found == ["hipaa-research-authorization", "hipaa-treatment"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_says_what_it_covers(name):
    readme = (PACKS / name / "README.md").read_text()
    text = build_bundle(NAMES, name="n", version=1, models={})
    ids = [
        line.split('"')[1]
        for file in (*text.policies, *text.invariants)
        if file.path.startswith(f"{name}/")
        for line in file.text.splitlines()
        if line.startswith("@id(")
    ]
    assert [policy for policy in ids if f"`{policy}`" not in readme] == []


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("gdpr/gdpr.cedar", '!(resource.jurisdiction in Jurisdiction::"EEA") &&', "false &&"),
        ("gdpr/gdpr.cedar", '@obligation("review")\n', ""),
        ("gdpr/data.toml", '"KR", ', '"KR", "BR", '),
        (
            "hipaa/hipaa.cedar",
            '!(resource.agreements.contains("baa"))',
            'resource.agreements.contains("baa")',
        ),
        ("residency/residency.cedar", "!context.consent", "context.consent"),
        ("base/api.cedar", 'principal in Role::"compliance"', 'principal in Role::"clinician"'),
    ],
)
def test_a_changed_rule_fails_a_case(packs, file, before, after):
    change(packs / file, before, after)
    run = run_cases(NAMES, root=packs)
    assert not run.passed
    assert any("expected" in problem for result in run.results for problem in result.problems)


def test_norway_is_a_country():
    assert read_yaml("{a: NO, b: true, c: '1'}", "p", dict) == {"a": "NO", "b": True, "c": "1"}


@pytest.mark.parametrize(
    ("text", "message"), [("", "p: it is empty"), ("a" * 2**20 + "b", "longer than")]
)
def test_cases_are_neither_empty_nor_without_bounds(text, message):
    with pytest.raises(CasesInvalid, match=message):
        read_yaml(text, "p", dict)


def test_a_policy_without_a_case_is_named(packs):
    (packs / "own").mkdir()
    (packs / "own/pack.toml").write_text('name = "own"\nrequires = ["base"]\n')
    (packs / "own/own.cedar").write_text(
        '@id("own-rule")\n@title("t")\n@cite("c")\n'
        'permit (principal, action == Action::"place", resource is Node);\n'
    )
    run = run_cases((*NAMES, "own"), root=packs)
    assert run.passed
    assert [text.id for text in run.untested] == ["own-rule"]
    found = [str(each) for each in untested_policies((*NAMES, "own"), root=packs)]
    assert "own/own.cedar:4:1: no case exercises own-rule" in found


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("candidates: [node:us]", "candidates: [node:mars]", "no place 'node:mars'"),
        ("purpose: HRESCH", "purpose: FUN", r"base/tests.yaml:\d+:\d+: .*FUN"),
        ("[base, hipaa, gdpr, residency]", "[base, hippa]", "'hippa'"),
        ("cases:", "case:", r"base/tests.yaml:15:1: .*unknown field `case`"),
        ("cases:", "cases: [", r"base/tests.yaml:\d+:\d+: not valid YAML"),
        ("node:us: {", "cloud:us: {", "neither node"),
        (
            "jurisdiction: US-CA }\n    cand",
            "jurisdiction: {} }\n    cand",
            r"30:\d+: .*\$.cases\[2\].facts.jurisdiction",
        ),
        (
            "    permitted: []",
            "    permitted: []\n    permitted: []",
            r"20:5: 'permitted' is given twice",
        ),
        ("permitted: []", "permitted: &a []", r"19:16: anchors and aliases"),
        ("permitted: []", "permitted: *a", r"19:16: anchors and aliases"),
        ("permitted: []", "permitted: !!python/tuple []", r"19:16: tags are not used"),
        ("permitted: []", "permitted: " + "[" * 20, r"19:29: it is nested deeper than 16"),
        ("permitted: []", "? [a]\n    : b", r"19:7: a key is one word"),
        ("permitted: []", "permitted: \a", "not valid YAML"),
    ],
)
def test_cases_that_make_no_sense_are_refused(packs, before, after, message):
    change(packs / "base/tests.yaml", before, after)
    with pytest.raises(CasesInvalid, match=message):
        run_cases(NAMES, root=packs)


@pytest.mark.parametrize(
    ("file", "before", "after", "finding"),
    [
        (GDPR, '"TREAT" &&', '"TREATT" &&', 'gdpr.cedar:12:23: "TREATT" is no purpose'),
        (GDPR, '"limited"]', '"limitted"]', 'gdpr.cedar:13:12: "limitted" is no data_class'),
        (GDPR, '"EEA"', '"EAA"', 'gdpr.cedar:11:42: Jurisdiction::"EAA" is neither'),
        (GDPR, '"clinician"', '"doctor"', 'gdpr.cedar:5:23: Role::"doctor" does not exist'),
        (GDPR, "context.purpose", "context.porpoise", "gdpr.cedar:12:11: .*porp"),
        (GDPR, '@id("gdpr-care")\n', "", "gdpr.cedar:3:1: every policy needs @id"),
        (GDPR, "@cite(", "@site(", "gdpr.cedar:3:1: @site means nothing here"),
        (GDPR, '"gdpr-care"', '"hipaa-treatment"', "gdpr.cedar:1:1: .* is taken by .*hipaa.cedar:4"),
        (GDPR, "&&\n", "\n", "gdpr.cedar:12:3: the policy does not parse"),
        (GDPR, "@id", "  @id", "gdpr.cedar:1: not laid out"),
        (GDPR, '"review"', '"Review it"', "gdpr.cedar:.*: the obligation 'Review it'"),
        (GDPR, "principal in Role", "principal == ?principal", "gdpr.cedar:5:16: .*parse"),
        (GDPR, '@cite("GDPR Art. 9(1)")', '@cite("c")\n@obligation("x")', "stands on a permit"),
        (SCHEMA, "entity Api;", "entity Api", "base.cedarschema:.*schema"),
        (SCHEMA, "resource: [Api]", "resource: [Apy]", "base.cedarschema:[1-9].*Apy"),
        (DATA, '"NO"', '"Norway"', "gdpr/data.toml:10:16: 'Norway' in the group EEA is neither"),
        (DATA, "[groups.EEA]", "[groups.EU]", "gdpr/data.toml:5:9: the group 'EU' must be"),
        (DATA, '"NO"', '"GOVERNED"', r"gdpr/data.toml:5:9: .*itself: EEA > GOVERNED > EEA"),
        (DATA, "checked = 2026-11-24\n", "", "gdpr/data.toml:5:2: .*checked"),
        (DATA, "[groups", "[group", "gdpr/data.toml:5:2: .*unknown field"),
        (DATA, "[groups.EEA]", "[groups.EEA", r"gdpr/data.toml:5:\d+: not valid TOML"),
        ("gdpr/pack.toml", '"base"', '"bases"', "requires the pack 'bases'"),
        ("gdpr/pack.toml", '"gdpr"', '"other"', "named as its folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_keeps_a_bundle_unbuilt(packs, file, before, after, finding):
    change(packs / file, before, after)
    found = "\n".join(str(each) for each in check_packs(NAMES, root=packs))
    assert re.search(finding, found), found
    if "laid out" not in finding:
        with pytest.raises(BundleInvalid):
            build_bundle(NAMES, name="n", version=1, models={}, root=packs)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("hipaa",), "requires the pack 'base'"),
        (("base", "base"), "named twice"),
        (("base", "../packs/hipaa"), "no policy pack"),
        ((), ""),
    ],
)
def test_packs_are_named_once_with_what_they_require(names, message):
    found = "\n".join(str(each) for each in check_packs(names))
    assert message in found
