"""Invariants: what no combination of facts may break, declared in a pack beside its policies.

They stand in `invariants.cedar`, in the language of the policies and checked by the same schema, but
decide nothing: `@invariant` says what is claimed of the requests that the statement matches.

- `never`    a forbid: none of them is permitted
- `always`   a permit: each of them is permitted
- `obliges`  a permit with `@obligation`: where one is permitted, it is with these obligations
- `only`     a permit with `@obligation`: nothing else is permitted with one of these obligations
- `monotone` a permit with `@fact`: to raise this fact takes no permission away, within them
- `ignores`  a permit with `@fact`: to raise this fact changes nothing, within them

A fact is raised from false to true, from `phi` over `limited` and `deidentified` to `synthetic`, or,
for `roles` and `agreements`, by one more.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import cedarpy
from msgspec import Struct

from policies.pack import Group
from policies.source import SourceFile, Statement, statements
from policies.validation import (
    Finding,
    found_in,
    read_annotations,
    read_obligations,
    read_statement,
    taken,
)

RAISED: Final = (
    "adequacy",
    "agreements",
    "attested",
    "carries_payload",
    "consent",
    "data_class",
    "emergency",
    "holds_subject",
    "on_device",
    "on_premises",
    "own_device",
    "roles",
)

_REQUIRED: Final = ("id", "title", "cite", "invariant")
_KNOWN: Final = (*_REQUIRED, "obligation", "fact")


class Claim(StrEnum):
    """What an invariant claims of the requests that it matches."""

    NEVER = "never"
    ALWAYS = "always"
    OBLIGES = "obliges"
    ONLY = "only"
    MONOTONE = "monotone"
    IGNORES = "ignores"


_ABOUT_OBLIGATIONS: Final = (Claim.OBLIGES, Claim.ONLY)
_ABOUT_A_FACT: Final = (Claim.MONOTONE, Claim.IGNORES)


class Invariant(Struct, frozen=True, kw_only=True):
    """One claim, and where it stands."""

    id: str
    title: str
    citation: str
    claim: Claim
    obligations: tuple[str, ...]
    fact: str
    path: str
    line: int


def examine_invariants(
    files: Sequence[SourceFile], schema: cedarpy.Schema | None, groups: Mapping[str, Group]
) -> tuple[tuple[Invariant, ...], tuple[Finding, ...]]:
    """Return the invariants in the order of the text, and all that is wrong with them."""
    invariants: list[Invariant] = []
    findings: list[Finding] = []
    for file in files:
        for statement in statements(file.text):
            policy, wrong = read_statement(file.path, statement, schema, groups)
            if policy is not None:
                invariant, messages = _invariant(policy, file.path, statement)
                if invariant is not None:
                    messages += taken(invariant.id, invariants)
                    invariants.append(invariant)
                wrong = [*found_in(file.path, statement, messages), *wrong]
            findings += wrong
    return tuple(invariants), tuple(findings)


def _invariant(
    policy: dict[str, Any], path: str, statement: Statement
) -> tuple[Invariant | None, list[str]]:
    annotations, messages = read_annotations(policy, _REQUIRED, _KNOWN)
    obligations, wrong = read_obligations(annotations.get("obligation", ""))
    messages += wrong
    claims: dict[str, Claim] = {claim.value: claim for claim in Claim}
    claim = claims.get(annotations.get("invariant", ""))
    if claim is None:
        if annotations.get("invariant"):
            messages.append(f"@invariant is one of {', '.join(Claim)}")
        return None, messages
    effect = "forbid" if claim is Claim.NEVER else "permit"
    if policy["effect"] != effect:
        messages.append(f"@invariant({claim}) stands on a {effect}")
    if bool(obligations) is not (claim in _ABOUT_OBLIGATIONS):
        messages.append(f"@obligation belongs to {' and '.join(_ABOUT_OBLIGATIONS)}, and to no other")
    fact = annotations.get("fact", "")
    if bool(fact) is not (claim in _ABOUT_A_FACT):
        messages.append(f"@fact belongs to {' and '.join(_ABOUT_A_FACT)}, and to no other")
    if fact and fact not in RAISED:
        messages.append(f"@fact is one of {', '.join(RAISED)}")
    invariant = Invariant(
        id=annotations.get("id", ""),
        title=annotations.get("title", ""),
        citation=annotations.get("cite", ""),
        claim=claim,
        obligations=obligations,
        fact=fact,
        path=path,
        line=statement.line,
    )
    return invariant, messages
