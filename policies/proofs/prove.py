"""Proves invariants: each is checked for every class of requests, and so for every request.

A counterexample is decided once more by the engine itself before it is shown.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from policies.bundle import Bundle
from policies.decision import Decision
from policies.facts import DataClass, Role
from policies.invariants import Claim, Invariant
from policies.proofs.axes import Axes, Axis, Numbers
from policies.proofs.formula import PLACE
from policies.proofs.judgement import Judgement, Mask, evaluate
from policies.proofs.requests import ProofBroken, Request, decide, request_at
from policies.proofs.space import Space, Traits
from policies.proofs.workbench import Claimed, Field, Workbench

SHOWN: Final = 3

_TRAITS: Final = ("adequacy", "agreement", "holds_subject", "on_premises")


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


NOWHERE: Final[Numbers] = np.zeros(0, dtype=np.int64)


class _Broken(Struct, frozen=True, eq=False):
    """Where an invariant is broken, and, for one about a fact, the steps along its axis.

    `mask` then has a step in place of each class of that axis, from class `low` to class `high`.
    """

    mask: Mask
    axis: int | None = None
    low: Numbers = NOWHERE
    high: Numbers = NOWHERE

    def shape(self, axes: Axes) -> tuple[int, ...]:
        """Return the whole shape of the mask."""
        sizes = (len(self.low) if n == self.axis else size for n, size in enumerate(axes.shape))
        return tuple(sizes)


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
    return bool(_broken(field.space, judgement, claim).mask.any())


def _proof(workbench: Workbench, field: Field, judgement: Judgement, claim: Claimed) -> Proof:
    axes = judgement.axes
    scope = evaluate(claim.rule.formula, axes).holds
    if claim.invariant.claim is Claim.ONLY:
        scope = ~scope
    found = _broken(field.space, judgement, claim)
    mask = np.broadcast_to(found.mask, found.shape(axes))
    return Proof(
        invariant=claim.invariant,
        api=field.space.api,
        combinations=axes.count(scope),
        classes=axes.classes,
        violations=int(np.count_nonzero(mask)),
        counterexamples=tuple(_least(workbench, field, judgement, claim.invariant, found, mask)),
    )


def _least(
    workbench: Workbench,
    field: Field,
    judgement: Judgement,
    invariant: Invariant,
    found: _Broken,
    mask: Mask,
) -> Iterator[Counterexample]:
    """Yield the violations that depart least from the strictest facts, each decided by the engine."""
    axes = judgement.axes
    weights: NDArray[np.int64] = np.zeros([1] * len(axes.shape), dtype=np.int64)
    for n, axis in enumerate(axes.axes):
        # A step has the weight of the class that it begins in.
        own = axis.weights if n != found.axis else axis.weights[found.low]
        weights = weights + axes.spread(n, own)
    where = np.flatnonzero(mask)
    far = np.broadcast_to(weights, mask.shape).reshape(-1)[where]
    # There may be millions; only those that are as near as the nearest few have to be sorted.
    near = np.flatnonzero(far <= np.partition(far, SHOWN - 1)[SHOWN - 1]) if far.size > SHOWN else ...
    least_first = where[near][np.argsort(far[near], kind="stable")]
    for flat in least_first[:SHOWN]:
        index = [int(n) for n in np.unravel_index(flat, mask.shape)]
        # A step has its points chosen below: its number is not that of a class.
        points = [
            int(axis.points[n]) if place != found.axis else 0
            for place, (axis, n) in enumerate(zip(axes.axes, index, strict=True))
        ]
        if found.axis is None:
            yield _counterexample(workbench, field, judgement, index, points)
            continue
        n, step = found.axis, index[found.axis]
        ends = int(found.low[step]), int(found.high[step])
        lower, higher = _step_points(field.space, axes.axes[n], ends, invariant.fact)
        index[n], points[n] = ends[0], lower
        low = _counterexample(workbench, field, judgement, index, points)
        index[n], points[n] = ends[1], higher
        high = _counterexample(workbench, field, judgement, index, points)
        yield msgspec.structs.replace(low, raised=(high.request, high.decision))


def _counterexample(
    workbench: Workbench, field: Field, judgement: Judgement, index: list[int], points: list[int]
) -> Counterexample:
    request = request_at(field.space, judgement.axes, points)
    decision = decide(workbench.bundle, request)
    permitted = np.broadcast_to(judgement.permitted, judgement.axes.shape)
    if decision.allowed is not bool(permitted[tuple(index)]):
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
            return _Broken(scope & np.logical_or.reduce(lacks))
        case Claim.ONLY:
            has = [judgement.obliged(name) for name in claim.invariant.obligations]
            return _Broken(~scope & np.logical_or.reduce(has))
        case Claim.MONOTONE:
            return _raised(space, judgement, claim.invariant, scope)
        case Claim.IGNORES:
            return _raised(space, judgement, claim.invariant, scope)


def _raised(space: Space, judgement: Judgement, invariant: Invariant, scope: Mask) -> _Broken:
    """Return where a step of a fact within `scope` takes a permission away, or changes anything."""
    axes = judgement.axes
    variable = PLACE if invariant.fact in _TRAITS else invariant.fact
    n = axes.place[variable]
    low, high = _steps(space, axes.axes[n], variable, invariant.fact)
    within = np.broadcast_to(scope, axes.shape)
    inside = within.take(low, axis=n) & within.take(high, axis=n)
    outcome = judgement.outcome(judgement.obligations)
    before, after = outcome.take(low, axis=n), outcome.take(high, axis=n)
    if invariant.claim is Claim.MONOTONE:
        return _Broken((before > 0) & (after == 0) & inside, n, low, high)
    return _Broken((before != after) & inside, n, low, high)


def _steps(
    space: Space, axis: Axis, variable: str, fact: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of classes between which one step of `fact` can lead."""
    place = axis.variables.index(variable)
    labels = axis.labels.reshape(axis.shape)
    pairs = set()
    values = space.domains[variable].values
    for one, other in _step_values(values, fact):
        before, after = labels.take(one, axis=place), labels.take(other, axis=place)
        both = np.unique(np.stack([before.reshape(-1), after.reshape(-1)]), axis=1)
        pairs |= {(int(low), int(high)) for low, high in both.T if low != high}
    ordered = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _step_values(values: Sequence[Any], fact: str) -> Iterator[tuple[int, int]]:
    """Yield the pairs of values of which the second has `fact` one step higher."""
    number = {value: n for n, value in enumerate(values)}
    for value, n in number.items():
        higher: list[Any] = []
        if isinstance(value, frozenset):
            higher = [value | {role} for role in Role if role not in value]
        elif isinstance(value, Traits):
            if not getattr(value, fact):
                higher = [msgspec.structs.replace(value, **{fact: True})]
        elif isinstance(value, DataClass):
            higher = list(DataClass)[list(DataClass).index(value) + 1 :][:1]
        elif value is False:
            higher = [True]
        yield from ((n, number[each]) for each in higher if each in number)
