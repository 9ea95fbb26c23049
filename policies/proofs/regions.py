"""Sets of requests as people read them: regions, each a few facts and the values that they may have."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.facts import PlacementKind, Role
from policies.proofs.axes import Axes, Axis
from policies.proofs.formula import HOME, MODEL, PLACE, PLACE_HOME, ROLES
from policies.proofs.judgement import Mask
from policies.proofs.jurisdictions import UNNAMED_COUNTRIES
from policies.proofs.space import ANY_MODEL, DEVICE_TRAITS, NODE_TRAITS, Space, Traits

LISTED_MAX: Final = 6
UNREGISTERED: Final = "any that is not registered"
ELSEWHERE: Final = "any other country"

Box = tuple[NDArray[np.int64], ...]
Region = Mapping[str, tuple[str, ...]]


def regions(space: Space, axes: Axes, mask: Mask) -> Iterator[Region]:
    """Yield regions that together hold exactly the requests of the classes in `mask`; some may overlap.

    A region names only the facts that it restricts.
    """
    # Of length 1 along the axes that make no difference: a box spans them whole.
    spread = mask.array()
    for box in boxes(spread):
        choices = [
            list(_regions_of_axis(space, axis, classes))
            for axis, classes, size in zip(axes.axes, box, spread.shape, strict=True)
            if len(classes) < size
        ]
        for parts in itertools.product(*choices):
            region = {name: values for part in parts for name, values in part.items()}
            # In the order in which facts are told, whatever the order of the axes.
            yield {name: region[name] for name in space.domains if name in region}


def boxes(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield boxes (for each axis, the indices that it spans) that together cover exactly `mask`.

    Greedy: each begins at the first point that is not covered yet and grows as far as `mask` does,
    first along the axes that it can span whole.
    """
    remaining = np.array(mask)
    whole = [np.arange(size) for size in mask.shape]
    while True:
        flat = int(remaining.reshape(-1).argmax())
        if not remaining.reshape(-1)[flat]:
            return
        box = [np.array([n]) for n in np.unravel_index(flat, mask.shape)]
        for partly in (False, True):
            for n, indices in enumerate(whole):
                others = tuple(each for each in range(mask.ndim) if each != n)
                grown = mask[np.ix_(*box[:n], indices, *box[n + 1 :])].all(axis=others)
                if partly or grown.all():
                    box[n] = np.flatnonzero(grown)
        remaining[np.ix_(*box)] = False
        yield tuple(box)


def _regions_of_axis(space: Space, axis: Axis, classes: NDArray[np.int64]) -> Iterator[Region]:
    """Yield regions of the axis' variables that hold the points of some classes."""
    points = np.isin(axis.labels, classes).reshape(axis.shape)
    # A set of roles is a number whose bits are the roles, the last role first.
    spread = tuple(
        itertools.chain.from_iterable(
            (2,) * len(Role) if name == ROLES else (size,)
            for name, size in zip(axis.variables, axis.shape, strict=True)
        )
    )
    for box in boxes(points.reshape(spread)):
        spans = iter(box)
        region: dict[str, tuple[str, ...]] = {}
        for name, size in zip(axis.variables, axis.shape, strict=True):
            if name == ROLES:
                bits = [next(spans) for _ in Role]
                words = tuple(
                    f"{'with' if own[0] else 'without'} {role}"
                    for role, own in zip(reversed(Role), bits, strict=True)
                    if len(own) == 1
                )
                if words:
                    region[name] = tuple(sorted(words))
                continue
            indices = next(spans)
            if len(indices) < size:
                region[name] = named_values(space, name, indices)
        yield region


def named_values(space: Space, name: str, indices: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the values with these numbers as people read them."""
    values = [space.domains[name].values[int(n)] for n in indices]
    if name in (HOME, PLACE_HOME):
        return _jurisdictions(space, {str(value) for value in values})
    if name == MODEL:
        return tuple(UNREGISTERED if value == ANY_MODEL else str(value) for value in values)
    if name == PLACE:
        return _places(values)
    return tuple(
        ("yes" if value else "no") if isinstance(value, bool) else str(value) for value in values
    )


def _places(values: list[Traits]) -> tuple[str, ...]:
    names: list[str] = []
    for kind in PlacementKind:
        own = [traits for traits in values if traits.kind is kind]
        told = NODE_TRAITS if kind is PlacementKind.NODE else DEVICE_TRAITS
        names += [_place(kind, *part) for part in _parts(own, told, ())]
    return tuple(names)


def _parts(
    own: list[Traits], told: Sequence[str], alike: tuple[str, ...]
) -> Iterator[tuple[Traits, tuple[str, ...]]]:
    """Yield parts that make up `own`, each as one of it and the traits that all of the part share.

    `alike` are the traits that all of `own` share, `told` those that may tell them apart.
    """
    if len(own) == 1 << len(told):
        yield own[0], alike
    elif own:
        # What tells the most apart comes first, so that the parts are few.
        halves = {name: [traits for traits in own if traits.has(name)] for name in told}
        name = max(told, key=lambda each: abs(2 * len(halves[each]) - len(own)))
        rest = [each for each in told if each != name]
        yield from _parts(halves[name], rest, (*alike, name))
        yield from _parts([t for t in own if not t.has(name)], rest, (*alike, name))


def _place(kind: PlacementKind, traits: Traits, told: Sequence[str]) -> str:
    words = [
        f"{'' if traits.has(name) else 'not '}{name}"
        for name in (*NODE_TRAITS, *DEVICE_TRAITS)
        if name in told
    ]
    return f"{kind} ({' '.join(words)})" if words else f"any {kind}"


def _jurisdictions(space: Space, codes: set[str]) -> tuple[str, ...]:
    """Return `codes` as groups that lie in them whole, and the rest; states go with their country."""
    names: list[str] = []
    left = set(codes)
    for group, members in sorted(space.groups.items(), key=lambda item: (-len(item[1]), item[0])):
        if members & left and members <= codes:
            names.append(group)
            left -= members
    countries = {code for code in left if "-" not in code}
    states = {code: {s for s in space.codes if s.startswith(f"{code}-")} for code in countries}
    whole = {code for code in countries if states[code] <= codes}
    named_countries = {code.partition("-")[0] for code in space.named}
    left -= {code for code in left if code.partition("-")[0] in whole and "-" in code}
    for code in sorted(left):
        country, _, state = code.partition("-")
        if country in UNNAMED_COUNTRIES and country not in named_countries:
            word = ELSEWHERE
        elif state and code not in space.named:
            word = f"any other state of {country}"
        else:
            word = code if code in whole or state else f"{code} (not its states)"
        if word not in names:
            names.append(word)
    return tuple(names)


def describe(region: Region) -> str:
    """Return a region as one line."""
    parts = []
    for name, values in region.items():
        shown = list(values[:LISTED_MAX])
        if len(values) > LISTED_MAX:
            shown.append(f"and {len(values) - LISTED_MAX} more")
        joined = " and ".join(shown) if name == ROLES else ", ".join(shown)
        parts.append(f"{name}: {joined}")
    return "; ".join(parts) or "every request"
