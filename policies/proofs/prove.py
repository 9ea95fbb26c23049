"""Proves invariants: each is checked for every class of requests, and so for every request.

A counterexample is decided once more by the engine itself before it is shown.
"""

import heapq
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from policies.bundle import Bundle
from policies.decision import Decision
from policies.facts import Agreement, DataClass, Role
from policies.invariants import Claim, Invariant
from policies.proofs.axes import Axes, Axis
from policies.proofs.formula import PLACE
from policies.proofs.judgement import Judgement, Mask, evaluate
from policies.proofs.requests import ProofBroken, Request, decide, request_at
from policies.proofs.space import Space, Traits
from policies.proofs.workbench import Claimed, Field, Workbench

SHOWN: Final = 3

_TRAITS: Final = ("adequacy", "agreements", "attested", "holds_subject", "on_premises")


class Counterexample(Struct, frozen=True, kw_only=True):
    """A request that breaks an invariant, and what is decided of it.

    `raised` is the same request with the invariant's fact raised, where it is about one.
    """

    request: Request
    decision: Decision
    raised: tuple[Request, Decision] | None = None


class Proof(Struct, frozen=True, kw_only=True):
    """How one invariant came out.

    `api` says of which kind of requests it was proved; an invariant about any action is proved of
    both. `combinations` are the requests that it is about, `classes` the classes of requests that were
    looked at, `violations` those of them that break it (for an invariant about a fact: the steps
    between two), and `counterexamples` the least requests among them.
    """

    invariant: Invariant
    api: bool
    combinations: int
    classes: int
    violations: int
    counterexamples: tuple[Counterexample, ...]

    @property
    def holds(self) -> bool:
        """Whether no request breaks it."""
        return not self.violations


class _Step(Struct, frozen=True, eq=False):
    """A step of a fact, from class `low` to class `high` of its axis, and where it breaks something."""

    low: int
    high: int
    mask: Mask


class _Broken(Struct, frozen=True, eq=False):
    """Where an invariant is broken; one about a fact is by steps along an axis."""

    mask: Mask
    axis: int | None = None
    steps: tuple[_Step, ...] = ()


def prove(bundle: Bundle) -> Iterator[Proof]:
    """Check each invariant of `bundle` for every request that there can be, one at a time.

    Raises:
        BundleInvalid: if the bundle does not validate.
        Unprovable: if a policy looks at what cannot be enumerated.
    """
    workbench = Workbench(bundle)
    for field in workbench.fields:
        judgement = None
        for claim in workbench.claims(field):
            judgement = judgement or workbench.judge(field)
            yield _proof(workbench, field, judgement, claim)


def combinations(bundle: Bundle) -> int:
    """Return how many requests there can be, as `prove` counts them."""
    return sum(field.space.size for field in Workbench(bundle).fields)


def broken(field: Field, judgement: Judgement, claim: Claimed) -> bool:
    """Return whether an invariant is broken."""
    return _broken(field.space, judgement, claim).mask.any()


def _proof(workbench: Workbench, field: Field, judgement: Judgement, claim: Claimed) -> Proof:
    axes = judgement.axes
    scope = evaluate(claim.rule.formula, axes).holds
    if claim.invariant.claim is Claim.ONLY:
        scope = ~scope
    found = _broken(field.space, judgement, claim)
    violations = [step.mask for step in found.steps] if found.axis is not None else [found.mask]
    return Proof(
        invariant=claim.invariant,
        api=field.space.api,
        combinations=axes.count(scope),
        classes=axes.classes,
        violations=sum(axes.count_classes(mask, found.axis) for mask in violations),
        counterexamples=tuple(_least(workbench, field, judgement, claim.invariant, found)),
    )


def _least(
    workbench: Workbench, field: Field, judgement: Judgement, invariant: Invariant, found: _Broken
) -> Iterator[Counterexample]:
    """Yield the violations that depart least from the strictest facts, each decided by the engine."""
    axes = judgement.axes
    weights = [[int(weight) for weight in axis.weights] for axis in axes.axes]
    if found.axis is None:
        for _, path in found.mask.nearest(weights, SHOWN):
            yield _counterexample(workbench, field, judgement, path, _points(axes, path))
        return
    n = found.axis
    # A step has the weight of the class that it begins in, and nothing else along its axis.
    along = [*weights[:n], [0], *weights[n + 1 :]]
    least = heapq.nsmallest(
        SHOWN,
        (
            (weight + weights[n][step.low], (*path[:n], number, *path[n + 1 :]))
            for number, step in enumerate(found.steps)
            for weight, path in step.mask.nearest(along, SHOWN)
        ),
    )
    for _, path in least:
        step = found.steps[path[n]]
        points = _points(axes, (*path[:n], step.low, *path[n + 1 :]))
        ends = _step_points(field.space, axes.axes[n], (step.low, step.high), invariant.fact)
        low, high = (
            _counterexample(
                workbench,
                field,
                judgement,
                (*path[:n], own, *path[n + 1 :]),
                (*points[:n], point, *points[n + 1 :]),
            )
            for own, point in zip((step.low, step.high), ends, strict=True)
        )
        yield msgspec.structs.replace(low, raised=(high.request, high.decision))


def _points(axes: Axes, path: Sequence[int]) -> list[int]:
    """Return the points that speak for these classes."""
    return [int(axis.points[own]) for axis, own in zip(axes.axes, path, strict=True)]


def _counterexample(
    workbench: Workbench,
    field: Field,
    judgement: Judgement,
    index: Sequence[int],
    points: Sequence[int],
) -> Counterexample:
    request = request_at(field.space, judgement.axes, points)
    decision = decide(workbench.bundle, request)
    if decision.allowed is not judgement.permitted.at(index):
        raise ProofBroken(f"the engine decides otherwise than the proof: {request}")
    return Counterexample(request=request, decision=decision)


def _step_points(space: Space, axis: Axis, ends: tuple[int, int], fact: str) -> tuple[int, int]:
    """Return two points of an axis between which one step leads from one class to the other."""
    variable = PLACE if fact in _TRAITS else fact
    place = axis.variables.index(variable)
    numbers = np.arange(len(axis.labels)).reshape(axis.shape)
    for one, other in _step_values(space.domains[variable].values, fact):
        before, after = numbers.take(one, axis=place), numbers.take(other, axis=place)
        fits = (axis.labels[before] == ends[0]) & (axis.labels[after] == ends[1])
        if fits.any():
            first = np.flatnonzero(fits)[0]
            return int(before.reshape(-1)[first]), int(after.reshape(-1)[first])
    raise ProofBroken("a step between two classes leads nowhere")


def _broken(space: Space, judgement: Judgement, claim: Claimed) -> _Broken:
    scope = evaluate(claim.rule.formula, judgement.axes).holds
    permitted = judgement.permitted
    match claim.invariant.claim:
        case Claim.NEVER:
            return _Broken(scope & permitted)
        case Claim.ALWAYS:
            return _Broken(scope & ~permitted)
        case Claim.OBLIGES:
            lacks = [permitted & ~judgement.obliged(name) for name in claim.invariant.obligations]
            return _Broken(scope & reduce(or_, lacks))
        case Claim.ONLY:
            has = [judgement.obliged(name) for name in claim.invariant.obligations]
            return _Broken(~scope & reduce(or_, has))
        case Claim.MONOTONE:
            return _raised(space, judgement, claim.invariant, scope)
        case Claim.IGNORES:
            return _raised(space, judgement, claim.invariant, scope)


def _raised(space: Space, judgement: Judgement, invariant: Invariant, scope: Mask) -> _Broken:
    """Return where a step of a fact within `scope` takes a permission away, or changes anything."""
    axes = judgement.axes
    variable = PLACE if invariant.fact in _TRAITS else invariant.fact
    n = axes.place[variable]
    within = scope.along(n)
    outcomes = [mask.along(n) for mask in judgement.outcome(judgement.obligations)]
    permitted = outcomes[0]
    steps = []
    for low, high in _steps(space, axes.axes[n], variable, invariant.fact):
        if invariant.claim is Claim.MONOTONE:
            mask = permitted[low] & ~permitted[high]
        else:
            mask = reduce(or_, (each[low] ^ each[high] for each in outcomes))
        mask = mask & within[low] & within[high]
        if mask.any():
            steps.append(_Step(low, high, mask))
    found = reduce(or_, (step.mask for step in steps), axes.book.nothing)
    return _Broken(found, n, tuple(steps))


def _steps(space: Space, axis: Axis, variable: str, fact: str) -> list[tuple[int, int]]:
    """Return the pairs of classes between which one step of `fact` can lead."""
    place = axis.variables.index(variable)
    labels = axis.labels.reshape(axis.shape)
    pairs = set()
    values = space.domains[variable].values
    for one, other in _step_values(values, fact):
        before, after = labels.take(one, axis=place), labels.take(other, axis=place)
        both = np.unique(np.stack([before.reshape(-1), after.reshape(-1)]), axis=1)
        pairs |= {(int(low), int(high)) for low, high in both.T if low != high}
    return sorted(pairs)


def _step_values(values: Sequence[Any], fact: str) -> Iterator[tuple[int, int]]:
    """Yield the pairs of values of which the second has `fact` one step higher."""
    number = {value: n for n, value in enumerate(values)}
    for value, n in number.items():
        higher: list[Any] = []
        if isinstance(value, frozenset):
            higher = [value | {role} for role in Role if role not in value]
        elif isinstance(value, Traits):
            if fact == "agreements":
                higher = [
                    msgspec.structs.replace(value, agreements=value.agreements | {one})
                    for one in Agreement
                    if one not in value.agreements
                ]
            elif not getattr(value, fact):
                higher = [msgspec.structs.replace(value, **{fact: True})]
        elif isinstance(value, DataClass):
            higher = list(DataClass)[list(DataClass).index(value) + 1 :][:1]
        elif value is False:
            higher = [True]
        yield from ((n, number[each]) for each in higher if each in number)
