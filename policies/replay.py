"""Replay: decide what was recorded again under another bundle, from the facts in the records alone.

A replay says what would have been refused, moved or permitted, and which of its own decisions the
bundle reproduces. Devices are as many as people, so they are asked about by what policies see in them.
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct, structs

from policies.comparison import Change, changes
from policies.decision import Decision
from policies.engine import Engine
from policies.facts import Candidate, Facts, PlacementKind

EXAMPLES_MAX = 5


class Recorded(Struct, frozen=True, kw_only=True):
    """One decision as it was recorded; `record` is where: `<origin>#<index>`."""

    record: str
    facts: Facts
    candidates: tuple[Candidate, ...]
    permitted: bool
    placement: str | None
    policies: tuple[str, ...]
    obligations: tuple[str, ...]
    bundle: str


class Example(Struct, frozen=True, kw_only=True):
    """One request that would have fared otherwise, and the policies that decided it and would have."""

    record: str
    placement: str | None
    policies: tuple[str, ...]
    would_be: tuple[str, ...]


class Replay(Struct, frozen=True, kw_only=True):
    """What came out.

    A request can count under several changes. `own` are the decisions that this very bundle made, of
    which `reproduced` came out the same in every word; the records of the others are `contradicted`.
    """

    bundle: str
    decided: int
    unchanged: int
    counts: dict[Change, int]
    examples: dict[Change, tuple[Example, ...]]
    own: int
    reproduced: int
    contradicted: tuple[str, ...]


def replay(engine: Engine, recorded: Iterable[Recorded]) -> Replay:
    """Decide everything `recorded` again by the bundle of `engine`."""
    bundle = engine.bundle_digest
    counts: Counter[Change] = Counter()
    examples: dict[Change, list[Example]] = {change: [] for change in Change}
    contradicted: list[str] = []
    decided = unchanged = own = reproduced = 0
    for entry in recorded:
        decided += 1
        decision, placement = _decide(engine, entry)
        if entry.bundle == bundle:
            own += 1
            if _same(entry, decision, placement):
                reproduced += 1
            elif len(contradicted) < EXAMPLES_MAX:
                contradicted.append(entry.record)
        found = changes(
            decision,
            permitted=entry.permitted,
            obligations=entry.obligations,
            placement=placement,
        )
        unchanged += not found
        for change in found:
            counts[change] += 1
            if len(examples[change]) < EXAMPLES_MAX:
                examples[change].append(_example(entry, decision))
    return Replay(
        bundle=bundle,
        decided=decided,
        unchanged=unchanged,
        counts=dict(counts),
        examples={change: tuple(shown) for change, shown in examples.items() if shown},
        own=own,
        reproduced=reproduced,
        contradicted=tuple(contradicted),
    )


def _decide(engine: Engine, entry: Recorded) -> tuple[Decision, str | None]:
    """Return the decision, and what the place where the request ran is called in it."""
    names: dict[str, str] = {}
    candidates = []
    for candidate in entry.candidates:
        if candidate.kind is PlacementKind.DEVICE:
            names[candidate.placement] = f"device:{len(names)}"
            candidate = structs.replace(candidate, placement=names[candidate.placement])  # noqa: PLW2901
        candidates.append(candidate)
    decision = engine.decide(entry.facts, tuple(candidates))
    placement = entry.placement
    return decision, None if placement is None else names.get(placement, placement)


def _same(entry: Recorded, decision: Decision, placement: str | None) -> bool:
    return (
        entry.permitted == decision.allowed
        and entry.policies == decision.policies
        and entry.obligations == decision.obligations
        and (placement is None or placement in decision.permitted)
    )


def _example(entry: Recorded, decision: Decision) -> Example:
    return Example(
        record=entry.record,
        placement=entry.placement,
        policies=entry.policies,
        would_be=decision.policies,
    )
