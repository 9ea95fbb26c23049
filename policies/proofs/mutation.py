"""Whether cases and proofs would notice a mistake: each is made in turn, in every policy."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import cedarpy
import msgspec
from msgspec import Struct

from policies.bundle import build_bundle
from policies.engine import Engine
from policies.pack import PACKS
from policies.proofs.judgement import Judgement, Mask, Rule
from policies.proofs.mutants import Mutant, as_text, mutants_of
from policies.proofs.prove import broken
from policies.proofs.workbench import Field, Workbench, rule_of
from policies.source import SourceFile, statements
from policies.testing import Suite, load_suites, run_suite


class Fate(StrEnum):
    """What became of a mutant."""

    NO_POLICY = "no policy"
    CASE = "case"
    PROOF = "proof"
    SURVIVED = "survived"


class Trial(Struct, frozen=True, kw_only=True):
    """What became of one mutant.

    `by` is the case or the invariant that caught it; `why` is what is to be said of a survivor.
    """

    mutant: Mutant
    fate: Fate
    by: str = ""
    why: str = ""


def try_mutants(packs: Sequence[str], *, root: Path = PACKS) -> Iterator[Trial]:
    """Make each mistake in each policy of the packs, and say what catches it.

    The packs' cases are run first, then their invariants are proved, with all the tables that the
    cases have.

    Raises:
        CasesInvalid: if a `tests.yaml` does not say what it should.
        BundleInvalid: if the packs do not validate.
    """
    suites = load_suites(packs, root=root)
    table: dict[str, tuple[str, ...]] = {}
    for suite in suites:
        table |= suite.bundle.residency
    bundle = build_bundle(packs, name="mutants", version=1, models={}, residency=table, root=root)
    bench = Workbench(bundle)
    schema = cedarpy.Schema.from_str(bundle.schema_text())
    for number, policy in enumerate(bench.policies):
        for mutant in mutants_of(policy):
            yield _try(bench, suites, schema, number, mutant)


def _try(
    bench: Workbench, suites: Sequence[Suite], schema: cedarpy.Schema, number: int, mutant: Mutant
) -> Trial:
    text = "" if mutant.policy is None else as_text(mutant.policy)
    if text and not cedarpy.validate_policies(text, schema).validation_passed:
        return Trial(mutant=mutant, fate=Fate.NO_POLICY)
    path = bench.texts[number].path
    # The cases of its own pack are the likeliest to notice.
    for suite in sorted(suites, key=lambda suite: not path.startswith(f"{suite.pack}/")):
        name = _failing(suite, mutant.id, text)
        if name:
            return Trial(mutant=mutant, fate=Fate.CASE, by=f"{suite.pack}: {name}")
    rule = None
    if mutant.policy is not None:
        obligations = (
            bench.texts[number].obligations if "obligation" in mutant.policy["annotations"] else ()
        )
        own = msgspec.structs.replace(
            bench.texts[number], effect=mutant.policy["effect"], obligations=obligations
        )
        rule = rule_of(own, mutant.policy)
    changed = {number: rule}
    judged = [(field, bench.judge(field, changed)) for field in bench.fields]
    for field, judgement in judged:
        for claim in bench.claims(field):
            if broken(field, judgement, claim):
                return Trial(mutant=mutant, fate=Fate.PROOF, by=claim.invariant.id)
    return Trial(mutant=mutant, fate=Fate.SURVIVED, why=_why(bench, number, rule))


def _failing(suite: Suite, identifier: str, text: str) -> str:
    """Return the first case that comes out otherwise with `text` in place of a policy, or nothing."""
    policies = tuple(_replaced(file, identifier, text) for file in suite.bundle.policies)
    if policies == suite.bundle.policies:
        return ""
    # Invariants decide nothing; to check them takes as long as to check the policies.
    engine = Engine(msgspec.structs.replace(suite.bundle, policies=policies, invariants=()))
    return next((result.name for result, _ in run_suite(suite, engine) if not result.passed), "")


def _replaced(file: SourceFile, identifier: str, text: str) -> SourceFile:
    if f'@id("{identifier}")' not in file.text:
        return file
    own = (
        text if f'@id("{identifier}")' in statement.text else statement.text
        for statement in statements(file.text)
    )
    return msgspec.structs.replace(file, text="\n".join(own))


def _why(bench: Workbench, number: int, rule: Rule | None) -> str:
    """Return what a mistake that nothing caught changes, over all requests."""
    names_only = False
    for field in bench.fields:
        before, after = _both(bench, field, number, rule)
        if before.outcome(before.obligations) != after.outcome(before.obligations):
            return "changes who is permitted: a case or an invariant is missing"
        names_only |= _reasons(before) != _reasons(after)
    return (
        "changes no outcome, only which policies are named as its reasons"
        if names_only
        else "changes nothing: every request is decided as before, by the same policies"
    )


def _both(
    bench: Workbench, field: Field, number: int, rule: Rule | None
) -> tuple[Judgement, Judgement]:
    rules = bench.rules(field)
    others = bench.rules(field, {number: rule})
    axes = field.axes([*rules, *others])
    return Judgement(axes, rules), Judgement(axes, others)


def _reasons(judgement: Judgement) -> Mapping[str, Mask]:
    return {
        rule.text.id: judgement.determined(n)
        for n, rule in enumerate(judgement.rules)
        if judgement.determined(n).any()
    }
