"""Policies that do nothing: those that never decide, and those that no outcome depends on."""

from collections.abc import Container, Iterator

from policies.bundle import Bundle
from policies.proofs.judgement import Judgement
from policies.proofs.workbench import Workbench
from policies.validation import Finding, PolicyText


def idle_policies(bundle: Bundle, superseded: Container[str] = ()) -> Iterator[Finding]:
    """Yield what is to be said against policies without effect, over every request that there can be.

    A policy is unreachable if no request makes it determine a decision. It is shadowed if without it
    every request has the same outcome: permitted or not, with the same obligations. A forbid may be
    shadowed on purpose, as the reason of a refusal that holds anyhow; `@redundant` then says so. Of the
    policies that another pack `superseded` it is wrong to have an effect.

    Raises:
        BundleInvalid: if the bundle does not validate.
        Unprovable: if a policy looks at what cannot be enumerated.
    """
    bench = Workbench(bundle)
    reached: set[str] = set()
    effective: set[str] = set()
    for field in bench.fields:
        rules = bench.rules(field)
        judgement = Judgement(field.axes(rules), rules)
        outcome = judgement.outcome(judgement.obligations)
        for n, rule in enumerate(rules):
            if judgement.determined(n).any():
                reached.add(rule.text.id)
                other = judgement.without(n).outcome(judgement.obligations)
                # Where packs permit nothing at all, no forbid of theirs can matter yet.
                if not judgement.permitted.any() or outcome != other:
                    effective.add(rule.text.id)
    for text in bench.texts:
        if text.id in superseded:
            if text.id in effective:
                yield _found(text, f"{text.id} changes outcomes, and a pack says that it supersedes it")
        elif text.id not in reached:
            yield _found(text, f"{text.id} is unreachable: it determines no decision")
        elif text.id not in effective and not text.redundant:
            yield _found(
                text,
                f"{text.id} is shadowed: without it no outcome changes;"
                ' delete it, or say @redundant("why it stands")',
            )


def _found(text: PolicyText, message: str) -> Finding:
    return Finding(path=text.path, line=text.line, column=text.column, message=message)
