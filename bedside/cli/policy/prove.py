"""`bedside policy prove`: what holds of every request that there can be."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from policies import PolicyError, explain
from policies.proofs import Counterexample, Proof, combinations, prove


def prove_invariants(
    draft: Annotated[
        Path | None,
        typer.Argument(help="a bundle's file [default: what is in force, or would be]"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Prove the packs' invariants for every combination of facts, or show what breaks one."""
    proofs: list[Proof] = []
    table = Table("invariant", "about", "combinations", "classes", "seconds", "holds")
    begin = earlier = time.perf_counter()
    try:
        bundle = open_site(config).bundles().asked(draft)[0]
        for proof in prove(bundle):
            now = time.perf_counter()
            table.add_row(
                proof.invariant.id,
                "API" if proof.api else "placement",
                f"{proof.combinations:,}",
                f"{proof.classes:,}",
                f"{now - earlier:.2f}",
                "yes" if proof.holds else "no",
            )
            proofs.append(proof)
            earlier = now
        total = combinations(bundle)
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    show(table)
    broken = [proof for proof in proofs if not proof.holds]
    for proof in broken:
        _show_broken(proof)
    if broken:
        raise BedsideError(f"{len(broken)} of {len(proofs)} invariants do not hold")
    say(f"{len(proofs)} invariants hold in all {total:,} combinations; {earlier - begin:.1f} s")


def _show_broken(proof: Proof) -> None:
    invariant = proof.invariant
    say(f"{invariant.path}:{invariant.line}: {invariant.id} does not hold: {invariant.title}")
    for example in proof.counterexamples:
        _show_example(example)


def _show_example(example: Counterexample) -> None:
    pairs = [(example.request, example.decision), *([example.raised] if example.raised else [])]
    for (request, decision), word in zip(pairs, ("counterexample", "and raised"), strict=False):
        say(f"  {word}:")
        for line in request.lines():
            say(f"    {line}")
        outcome = "permitted" if decision.allowed else "refused"
        say(f"    {outcome} by {', '.join(decision.policies)}")
        if decision.obligations:
            say(f"    with {', '.join(decision.obligations)}")
        if request.facts is not None:
            say(f"    {explain(decision, request.facts)}")
