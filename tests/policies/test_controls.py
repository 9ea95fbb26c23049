"""The control matrix is what the packs say, and what it names is there."""

import ast
from pathlib import Path

import pytest

from policies.controls import as_page, citations, controls
from policies.pack import PACKS, SHIPPED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/controls.md"


@pytest.fixture(scope="module")
def matrix():
    return controls(SHIPPED)


def test_every_pack_that_ships_is_in_it_and_every_requirement_has_a_title(matrix):
    assert sorted(SHIPPED) == sorted(path.parent.name for path in PACKS.glob("*/pack.toml"))
    assert all(control.requirement.title for control in matrix)


def test_the_page_is_what_the_packs_say(matrix):
    assert PAGE.read_text() == as_page(matrix)


def test_every_named_test_is_there(matrix):
    named = [name for control in matrix for name in control.requirement.tests]
    assert named
    for name in named:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        assert function in {getattr(node, "name", "") for node in tree.body}, name


def test_every_policy_stands_with_a_requirement_and_a_case(matrix):
    assert all(control.cases for control in matrix if control.policies)
    met = {control.requirement.id for control in matrix if not control.open}
    assert {"45 CFR 164.312(b)", "45 CFR 164.312(a)(1)", "GDPR Art. 44"} <= met


def test_what_nothing_meets_is_open_and_told(matrix):
    opened = {control.requirement.id for control in matrix if control.open}
    assert {"45 CFR 164.312(e)(1)", "GDPR Art. 48"} <= opened
    told = as_page(matrix).partition("## Open")[2]
    assert all(f"- {name}" in told for name in opened)


def test_a_citation_may_name_several_requirements():
    assert citations("GDPR Art. 44, Art. 45(1); 45 CFR 164.502(b)") == (
        "GDPR Art. 44",
        "GDPR Art. 45(1)",
        "45 CFR 164.502(b)",
    )
