"""Combinations that no atom tells apart, taken together.

Variables that some atom reads together make one axis, the others one each. Two points of an axis are
of one class if every atom has the same value at both; so whatever is made of the atoms has the same
value throughout a class, and one point of it speaks for all.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from policies.proofs.diagram import Book, Diagram
from policies.proofs.formula import Atom, Unprovable
from policies.proofs.space import Space
from policies.proofs.tables import Tables

POINTS_MAX = 32_000_000
# 39 values of three kinds fit into 64 bits.
PACKED = 39

Numbers = NDArray[np.int64]


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
    """All axes for a set of atoms, and the book of the diagrams over them; axis n is `axes[n]`."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        """Put the axes in order."""
        self.axes = tuple(axes)
        self.shape = tuple(len(axis.counts) for axis in axes)
        self.place = {name: n for n, axis in enumerate(axes) for name in axis.variables}
        self.book = Book(self.shape)
        self._axis_of = {atom: n for n, axis in enumerate(axes) for atom in axis.columns}
        self._counts = [[int(count) for count in axis.counts] for axis in axes]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return math.prod(self.shape)

    def where(self, atom: Atom, value: int) -> Diagram:
        """Return the classes in which an atom has this value."""
        n = self._axis_of[atom]
        return self.book.column(n, self.axes[n].columns[atom] == value)

    def count(self, mask: Diagram) -> int:
        """Return for how many combinations the classes in `mask` stand."""
        return mask.count(self._counts)

    def count_classes(self, mask: Diagram, axis: int | None = None) -> int:
        """Return how many classes are in `mask`; those along `axis`, if one is given, count as one."""
        return mask.count([[1] * (1 if n == axis else size) for n, size in enumerate(self.shape)])


class Partitioner:
    """Makes axes for sets of atoms in one space, and remembers those that it has made."""

    def __init__(self, tables: Tables) -> None:
        """Work in the space of `tables`."""
        self._tables = tables
        self._axes: dict[tuple[tuple[str, ...], frozenset[Atom]], Axis] = {}
        self._made: dict[tuple[Axis, ...], Axes] = {}

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
        made = tuple(axes)
        if made not in self._made:
            self._made[made] = Axes(made)
        return self._made[made]

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
