"""What a decision hangs on: the facts that mattered, and the nearest change of facts that flips it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, Final

import numpy as np
from msgspec import Struct

from policies.bundle import Bundle, validate
from policies.decision import Decision
from policies.engine import Engine
from policies.entities import Shape, shape_of
from policies.errors import FactsInvalid
from policies.explain import explain
from policies.facts import JURISDICTION, Candidate, Facts, Role
from policies.obligations import resolved
from policies.proofs.axes import Axes, Axis, Numbers
from policies.proofs.formula import MODEL, ROLES, actions_of, atoms_of, parse_policies
from policies.proofs.judgement import Judgement
from policies.proofs.regions import named_values
from policies.proofs.requests import ProofBroken
from policies.proofs.space import ANY_MODEL, Space
from policies.proofs.workbench import Field, rule_of

FLIPS_SHOWN: Final = 3


class FactChange(Struct, frozen=True, kw_only=True):
    """One fact with other values; any of them does."""

    fact: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.fact}: {' or '.join(self.values)}"


class Matter(Struct, frozen=True, kw_only=True):
    """A fact that changes the outcome if it alone is changed, and where the request may then run."""

    change: FactChange
    permitted: tuple[str, ...]
    obligations: tuple[str, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a decision came out as it did.

    `looked_at` are the facts that the deciding policies read. `mattered` are all single changes that
    alter where the request may run, or with which obligations. `flips` are changes of the fewest
    facts (a role counts for one) after which the request is permitted somewhere, or nowhere any
    longer; there are none if nothing that could be said of the request does that.
    """

    sentence: str
    decision: Decision
    looked_at: tuple[str, ...]
    mattered: tuple[Matter, ...]
    flips: tuple[tuple[FactChange, ...], ...]


class _Asked(Struct, frozen=True, eq=False):
    """The request that is explained, among all that differ from it in facts only."""

    space: Space
    axes: Axes
    judgements: tuple[Judgement, ...]
    places: tuple[Shape, ...]
    points: tuple[int, ...]

    def index(self, points: Sequence[int]) -> tuple[int, ...]:
        """Return the class of these points."""
        pairs = zip(self.axes.axes, points, strict=True)
        return tuple(int(axis.labels[point]) for axis, point in pairs)


def explain_request(bundle: Bundle, facts: Facts, candidates: tuple[Candidate, ...]) -> Explanation:
    """Decide a request and say what the decision hangs on; the candidates stay as they are.

    Raises:
        FactsInvalid: if a jurisdiction is no ISO 3166 code.
        BundleInvalid: if the bundle does not validate.
        Unprovable: if a policy looks at what cannot be enumerated.
    """
    homes = (facts.jurisdiction, *(candidate.jurisdiction for candidate in candidates))
    if not all(map(JURISDICTION.fullmatch, homes)):
        raise FactsInvalid("a jurisdiction is an ISO 3166 code: a country (DE), or a state (US-CA)")
    decision = Engine(bundle).decide(facts, candidates)
    sentence = explain(decision, facts)
    if not candidates:
        return Explanation(sentence=sentence, decision=decision, looked_at=(), mattered=(), flips=())
    asked = _asked(bundle, facts, tuple(dict.fromkeys(map(shape_of, candidates))))
    flips = tuple(_flips(asked))
    now = _outcome(asked, asked.index(asked.points))
    access = bundle.models.get(facts.model)
    held = resolved(now[1], access.necessary_outputs if access else ())
    if (_placements(now[0], asked, candidates), held) != (decision.permitted, decision.obligations):
        raise ProofBroken("the engine decides this request otherwise than its explanation")
    return Explanation(
        sentence=sentence,
        decision=decision,
        looked_at=_looked_at(asked, decision),
        mattered=tuple(_mattered(asked, candidates)),
        flips=flips,
    )


def _asked(bundle: Bundle, facts: Facts, places: tuple[Shape, ...]) -> _Asked:
    parsed = parse_policies(bundle.policies)
    worlds = [bundle] * len(places)
    codes = (facts.jurisdiction, *(place.jurisdiction for place in places))
    models = [bundle.models] * len(places)
    belongs = (facts.site, facts.organisation, *(place.operator for place in places))
    space = Space(worlds, parsed, models=models, places=places, codes=codes, belongs=belongs)
    field = Field(space)
    rules = [
        tuple(
            rule_of(text, policy, world)
            for text, policy in zip(validate(bundle), parsed, strict=True)
            if field.concerns(actions_of(policy))
        )
        for world in range(len(places))
    ]
    axes = field.axes([rule for own in rules for rule in own])
    values = _values(bundle, facts)
    points = []
    for axis in axes.axes:
        numbers = [space.domains[name].values.index(values[name]) for name in axis.variables]
        points.append(int(np.ravel_multi_index(numbers, axis.shape)))
    judgements = tuple(Judgement(axes, own) for own in rules)
    return _Asked(space, axes, judgements, places, tuple(points))


def _values(bundle: Bundle, facts: Facts) -> Mapping[str, Any]:
    values = {name: getattr(facts, name) for name in Facts.__struct_fields__}
    model = facts.model if facts.model in bundle.models else ANY_MODEL
    return {**values, MODEL: model, "action": "place"}


def _outcome(asked: _Asked, index: tuple[int, ...]) -> tuple[tuple[bool, ...], tuple[str, ...]]:
    """Return, for one class, which of the places are permitted and with which obligations."""
    permitted = tuple(judgement.permitted.at(index) for judgement in asked.judgements)
    obligations = {
        name
        for judgement in asked.judgements
        for name in judgement.obligations
        if judgement.obliged(name).at(index)
    }
    return permitted, tuple(sorted(obligations))


def _placements(
    permitted: tuple[bool, ...], asked: _Asked, candidates: Sequence[Candidate]
) -> tuple[str, ...]:
    shapes = dict(zip(asked.places, permitted, strict=True))
    return tuple(each.placement for each in candidates if shapes[shape_of(each)])


def _looked_at(asked: _Asked, decision: Decision) -> tuple[str, ...]:
    reads = {
        name
        for judgement in asked.judgements
        for rule in judgement.rules
        if rule.text.id in decision.policies
        for atom in atoms_of(rule.formula)
        for name in (*asked.space.reads(atom), *(n for n in atom.reads if n.startswith("place")))
    }
    return tuple(sorted(reads - {"action"}))


def _mattered(asked: _Asked, candidates: Sequence[Candidate]) -> Iterator[Matter]:
    now = _outcome(asked, asked.index(asked.points))
    for n, axis in enumerate(asked.axes.axes):
        for place, name in enumerate(axis.variables):
            found: dict[tuple[tuple[bool, ...], tuple[str, ...]], list[int]] = {}
            for value in _alternatives(axis, place, name, asked.points[n]):
                points = [*asked.points]
                points[n] = _with_value(axis, asked.points[n], place, value)
                outcome = _outcome(asked, asked.index(points))
                if outcome != now:
                    found.setdefault(outcome, []).append(value)
            for (permitted, obligations), values in sorted(found.items()):
                for change in _changes(asked.space, name, values, _value(axis, asked.points[n], place)):
                    yield Matter(
                        change=change,
                        permitted=_placements(permitted, asked, candidates),
                        obligations=obligations,
                    )


def _flips(asked: _Asked) -> Iterator[tuple[FactChange, ...]]:
    axes = asked.axes
    allowed = reduce(or_, (judgement.permitted for judgement in asked.judgements))
    far: list[list[int]] = []
    nearest: list[Numbers] = []
    for axis, point in zip(axes.axes, asked.points, strict=True):
        distances = _distances(axis, point)
        order = np.argsort(distances, kind="stable")
        _, first = np.unique(axis.labels[order], return_index=True)
        nearest.append(order[first])
        far.append([int(distance) for distance in distances[order[first]]])
    flipped = ~allowed if allowed.at(asked.index(asked.points)) else allowed
    found = flipped.nearest(far, FLIPS_SHOWN)
    for distance, path in found:
        if distance == found[0][0]:
            points = [int(points[own]) for points, own in zip(nearest, path, strict=True)]
            yield tuple(_steps(asked, points))


def _steps(asked: _Asked, points: Sequence[int]) -> Iterator[FactChange]:
    """Yield the changes from the request to these points."""
    for axis, before, after in zip(asked.axes.axes, asked.points, points, strict=True):
        for place, name in enumerate(axis.variables):
            was, becomes = _value(axis, before, place), _value(axis, after, place)
            if was == becomes:
                continue
            # Any other value of the same class does as well.
            same = [
                value
                for value in range(axis.shape[place])
                if axis.labels[_with_value(axis, after, place, value)] == axis.labels[after]
            ]
            values = [becomes] if name == ROLES else same
            yield from _changes(asked.space, name, values, was)


def _changes(space: Space, name: str, values: Sequence[int], was: int) -> Iterator[FactChange]:
    if name != ROLES:
        yield FactChange(fact=name, values=named_values(space, name, np.array(values)))
        return
    for value in values:
        for n, role in enumerate(Role):
            if (value ^ was) >> n & 1:
                yield FactChange(
                    fact=name, values=(f"{'with' if value >> n & 1 else 'without'} {role}",)
                )


def _alternatives(axis: Axis, place: int, name: str, point: int) -> Iterator[int]:
    now = _value(axis, point, place)
    if name == ROLES:
        yield from (now ^ (1 << n) for n in range(len(Role)))
    else:
        yield from (value for value in range(axis.shape[place]) if value != now)


def _distances(axis: Axis, point: int) -> Numbers:
    """Return how many facts differ between one point of an axis and each."""
    total: Numbers = np.zeros(axis.shape, dtype=np.int64)
    for place, name in enumerate(axis.variables):
        now = _value(axis, point, place)
        values = np.arange(axis.shape[place])
        apart = (
            np.array([(int(v) ^ now).bit_count() for v in values]) if name == ROLES else values != now
        )
        total = total + apart.reshape([-1 if n == place else 1 for n in range(len(axis.shape))])
    return total.reshape(-1)


def _value(axis: Axis, point: int, place: int) -> int:
    return int(np.unravel_index(point, axis.shape)[place])


def _with_value(axis: Axis, point: int, place: int, value: int) -> int:
    numbers = [int(n) for n in np.unravel_index(point, axis.shape)]
    numbers[place] = value
    return int(np.ravel_multi_index(numbers, axis.shape))
