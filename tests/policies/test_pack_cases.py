import re
import shutil

import pytest

from policies import BundleInvalid, CasesInvalid, build_bundle, check_packs, run_cases
from policies.pack import PACKS

NAMES = ("base", "hipaa", "gdpr", "residency")
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


def test_the_packs_that_ship_have_no_findings():
    assert check_packs(NAMES) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_says_what_it_covers(name):
    readme = (PACKS / name / "README.md").read_text()
    text = build_bundle(NAMES, name="n", version=1, models={})
    ids = [
        line.split('"')[1]
        for file in text.policies
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
        ("hipaa/hipaa.cedar", "!resource.agreement", "resource.agreement"),
        ("residency/residency.cedar", "!context.consent", "context.consent"),
        ("base/api.cedar", 'principal in Role::"compliance"', 'principal in Role::"clinician"'),
    ],
)
def test_a_changed_rule_fails_a_case(packs, file, before, after):
    change(packs / file, before, after)
    run = run_cases(NAMES, root=packs)
    assert not run.passed
    assert any("expected" in problem for result in run.results for problem in result.problems)


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


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('candidates = ["node:us"]', 'candidates = ["node:mars"]', "no place 'node:mars'"),
        ('purpose = "HRESCH"', 'purpose = "FUN"', "purpose"),
        ('packs = ["base", "hipaa", "gdpr", "residency"]', 'packs = ["base", "hippa"]', "'hippa'"),
        ("[[case]]", "[[cases]]", "unknown field"),
        ("[[case]]", "[[case", "base/tests.toml"),
        ('[places."node:us"]', '[places."cloud:us"]', "neither node"),
    ],
)
def test_cases_that_make_no_sense_are_refused(packs, before, after, message):
    change(packs / "base/tests.toml", before, after)
    with pytest.raises(CasesInvalid, match=message):
        run_cases(NAMES, root=packs)


@pytest.mark.parametrize(
    ("file", "before", "after", "finding"),
    [
        (GDPR, '"TREAT" &&', '"TREATT" &&', 'gdpr.cedar:4: "TREATT" is no purpose'),
        (GDPR, '"limited"]', '"limitted"]', 'gdpr.cedar:4: "limitted" is no data_class'),
        (GDPR, '"EEA"', '"EAA"', 'gdpr.cedar:4: Jurisdiction::"EAA" is neither'),
        (GDPR, '"clinician"', '"doctor"', 'gdpr.cedar:4: Role::"doctor" does not exist'),
        (GDPR, "context.purpose", "context.porpoise", "gdpr.cedar:4: .*porpoise"),
        (GDPR, '@id("gdpr-care")\n', "", "gdpr.cedar:3: every policy needs @id"),
        (GDPR, "@cite(", "@site(", "gdpr.cedar:4: @site means nothing here"),
        (GDPR, '"gdpr-care"', '"hipaa-treatment"', "gdpr.cedar:4: .* is taken by hipaa/hipaa.cedar:4"),
        (GDPR, "&&\n", "\n", "gdpr.cedar:4: the policy does not parse"),
        (GDPR, "@id", "  @id", "gdpr.cedar:1: not laid out"),
        (GDPR, '"review"', '"Review it"', "gdpr.cedar:.*: the obligation 'Review it'"),
        (GDPR, "principal in Role", "principal == ?principal", "gdpr.cedar:4: .*parse"),
        (GDPR, '@cite("GDPR Art. 9(1)")', '@cite("c")\n@obligation("x")', "stands on a permit"),
        (SCHEMA, "entity Api;", "entity Api", "base.cedarschema:.*schema"),
        (SCHEMA, "resource: [Api]", "resource: [Apy]", "base.cedarschema:[1-9].*Apy"),
        (DATA, '"NO"', '"Norway"', "'Norway' in the group EEA is neither"),
        (DATA, "[groups.EEA]", "[groups.EU]", "the group 'EU' must be"),
        (DATA, '"NO"', '"GOVERNED"', "the group EEA contains itself"),
        (DATA, "checked = 2026-11-23\n", "", "gdpr/data.toml: .*checked"),
        (DATA, "[groups", "[group", "gdpr/data.toml: .*unknown field"),
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
