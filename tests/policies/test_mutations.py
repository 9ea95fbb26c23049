"""A mistake in any policy of the packs is caught by a case or a proof."""

import json
from pathlib import Path

import cedarpy
import pytest

from policies.pack import PACKS, SHIPPED
from policies.proofs.formula import parse_policies
from policies.proofs.mutants import as_text, mutants_of
from policies.proofs.mutation import Fate, try_mutants
from policies.proofs.mutation_report import as_markdown, caught_share, summary
from policies.source import SourceFile

NAMES = SHIPPED
PAGE = Path(__file__).parents[2] / "docs/reference/policy-mutations.md"
TEXT = """@id("own")
@title("t")
@cite("c")
@obligation("review")
permit (principal in Role::"app", action == Action::"place", resource is Node)
when { context.consent && !(["a", "b"].contains(context.purpose) || context.emergency) };
"""


@pytest.fixture(scope="module")
def trials():
    return list(try_mutants(NAMES))


def test_mistakes_in_the_packs_are_caught(trials):
    assert caught_share(trials) >= 0.95
    assert {trial.mutant.id for trial in trials} == {
        line.split('"')[1]
        for file in PACKS.glob("*/*.cedar")
        if file.name != "invariants.cedar"
        for line in file.read_text().splitlines()
        if line.startswith("@id(")
    }
    assert all(trial.by for trial in trials if trial.fate in (Fate.CASE, Fate.PROOF))


def test_what_survives_changes_no_outcome_and_is_listed(trials):
    survivors = [trial for trial in trials if trial.fate is Fate.SURVIVED]
    assert all(trial.why.startswith(("changes nothing", "changes no outcome")) for trial in survivors)
    assert PAGE.read_text() == as_markdown(trials)
    assert summary(trials) in PAGE.read_text()


def test_every_kind_of_mistake_is_made_once():
    (policy,) = parse_policies((SourceFile(path="own/own.cedar", text=TEXT),))
    mutants = list(mutants_of(policy))
    mistakes = [mutant.mistake for mutant in mutants]
    for word in (
        "delete the policy",
        "forbid instead",
        "drop the obligation",
        "any principal",
        "any action",
        "any resource",
        "when: take `context.consent` for true",
        "when: take `context.emergency` for false",
        'leave `"a"` out',
        "drop the negation",
    ):
        assert any(word in mistake for mistake in mistakes), word
    texts = [as_text(mutant.policy) for mutant in mutants if mutant.policy is not None]
    spelled = {
        json.dumps(json.loads(cedarpy.policies_to_json_str(text)), sort_keys=True) for text in texts
    }
    assert len(spelled) == len(texts)
    assert all('"own"' in text for text in texts)
