"""Combinations that no atom tells apart, taken together.

Variables that some atom reads together make one axis, the others one each. Two points of an axis are
of one class if every atom has the same value at both; so whatever is made of the atoms has the same
value throughout a class, and one point of it speaks for all.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from policies.proofs.formula import Atom, Unprovable
from policies.proofs.space import Space
from policies.proofs.tables import Tables

POINTS_MAX = 32_000_000
# 39 values of three kinds fit into 64 bits.
PACKED = 39

Numbers = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


class Axis(Struct, frozen=True, eq=False):
    """One axis: its variables, and for each of its points (all combinations of them) the class.

    `counts` are the points of each class, `points` the least departing one of each, `weights` how
    far that one departs.
    """

    variables: tuple[str, ...]
    shape: tuple[int, ...]
    labels: Numbers
    counts: Numbers
    points: Numbers
    weights: Numbers
    columns: dict[Atom, NDArray[np.uint8]]


class Axes:
    """All axes for a set of atoms; axis n of every array about them is `axes[n]`."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        """Put the axes in order."""
        self.axes = tuple(axes)
        self.shape = tuple(len(axis.counts) for axis in axes)
        self.place = {name: n for n, axis in enumerate(axes) for name in axis.variables}
        self._axis_of = {atom: n for n, axis in enumerate(axes) for atom in axis.columns}

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return math.prod(self.shape)

    def values(self, atom: Atom) -> NDArray[np.uint8]:
        """Return what an atom is worth in each class, of length 1 along the axes it does not read."""
        n = self._axis_of[atom]
        return self.spread(n, self.axes[n].columns[atom])

    def spread(self, n: int, column: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return what varies along axis `n` only, ready to be combined with other arrays."""
        return column.reshape(self._along(n))

    def count(self, mask: NDArray[np.bool_]) -> int:
        """Return for how many combinations the classes in `mask` stand."""
        total: Numbers = mask.astype(np.int64)
        for n, axis in enumerate(self.axes):
            # Along an axis that this mask does not vary on, all points count.
            varies = total.shape[n] != 1
            weighed = total * axis.counts.reshape(self._along(n)) if varies else total
            total = weighed.sum(axis=n, keepdims=True) * (1 if varies else int(axis.counts.sum()))
        return int(total.reshape(-1)[0])

    def _along(self, n: int) -> list[int]:
        return [-1 if each == n else 1 for each in range(len(self.shape))]


class Partitioner:
    """Makes axes for sets of atoms in one space, and remembers those that it has made."""

    def __init__(self, tables: Tables) -> None:
        """Work in the space of `tables`."""
        self._tables = tables
        self._axes: dict[tuple[tuple[str, ...], frozenset[Atom]], Axis] = {}

    def axes(self, atoms: Iterable[Atom]) -> Axes:
        """Return the axes for these atoms.

        Raises:
            Unprovable: if they tie too many variables together.
        """
        asked = tuple(dict.fromkeys(atoms))
        self._tables.ask(asked)
        space = self._tables.space
        group = {name: name for name in space.domains}

        def root(name: str) -> str:
            while group[name] != name:
                name = group[name]
            return name

        reads = {atom: space.reads(atom) for atom in asked}
        for names in reads.values():
            for name in names[1:]:
                group[root(name)] = root(names[0])
        order = {name: n for n, name in enumerate(space.domains)}
        axes: list[Axis] = []
        for first in sorted({root(name) for name in space.domains}, key=order.__getitem__):
            variables = tuple(name for name in space.domains if root(name) == first)
            own = [atom for atom in asked if reads[atom] and root(reads[atom][0]) == first]
            if not axes:
                # What reads nothing is the same everywhere, and so on any axis.
                own += [atom for atom in asked if not reads[atom]]
            axes.append(self._axis(variables, tuple(own)))
        return Axes(axes)

    def _axis(self, variables: tuple[str, ...], atoms: tuple[Atom, ...]) -> Axis:
        key = (variables, frozenset(atoms))
        axis = self._axes.get(key)
        if axis is None:
            axis = self._axes[key] = _partition(self._tables, variables, atoms)
        return axis


def _partition(tables: Tables, variables: tuple[str, ...], atoms: tuple[Atom, ...]) -> Axis:
    space: Space = tables.space
    shape = tuple(len(space.domains[name].values) for name in variables)
    size = math.prod(shape)
    if size > POINTS_MAX:
        raise Unprovable(
            f"conditions tie {', '.join(variables)} together, of which there are {size} combinations;"
            f" {POINTS_MAX} can be looked at"
        )
    weights: Numbers = np.zeros(shape, dtype=np.int64)
    for n, name in enumerate(variables):
        own = np.array(space.domains[name].weights, dtype=np.int64)
        weights = weights + own.reshape([-1 if each == n else 1 for each in range(len(shape))])
    weights = weights.reshape(-1)
    spread = {atom: _spread(tables, atom, variables, shape) for atom in atoms}
    labels: Numbers = np.zeros(size, dtype=np.int64)
    for begin in range(0, len(atoms), PACKED - 20):
        # Labels take the place of at most 20 values: there are fewer points than 3 ** 20.
        for atom in atoms[begin : begin + PACKED - 20]:
            labels = labels * 3 + spread[atom].reshape(-1)
        _, labels = np.unique(labels, return_inverse=True)
    least_first = np.argsort(weights, kind="stable")
    _, first, counts = np.unique(labels[least_first], return_index=True, return_counts=True)
    points = least_first[first]
    return Axis(
        variables=variables,
        shape=shape,
        labels=labels,
        counts=counts.astype(np.int64),
        points=points,
        weights=weights[points],
        columns={atom: spread[atom].reshape(-1)[points] for atom in atoms},
    )


def _spread(
    tables: Tables, atom: Atom, variables: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    reads = tables.space.reads(atom)
    sizes = [size if name in reads else 1 for name, size in zip(variables, shape, strict=True)]
    return np.broadcast_to(tables.of(atom).reshape(sizes), shape)
