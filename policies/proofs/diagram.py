"""Sets of requests as decision diagrams: what classes have in common is worked out once.

A diagram asks for the class along one axis after the other, in their order, and leaves out an axis
that makes no difference (Bryant 1986, with as many branches as an axis has classes: Srinivasan et al.
1990). Equal sets of one book are one object, so that comparing them costs nothing. The classes number
the product of all axes; a diagram grows with what policies distinguish.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Path = tuple[int, ...]


class Diagram:
    """A set of points; a point has one class along each axis of its book."""

    __slots__ = ("book", "children", "level")

    def __init__(self, book: "Book", level: int, children: "tuple[Diagram, ...]") -> None:
        """Ask for the class along axis `level`, and go on with the child of that class."""
        self.book = book
        self.level = level
        self.children = children

    def __and__(self, other: "Diagram") -> "Diagram":
        """Return the intersection."""
        return self.book.both(self, other)

    def __or__(self, other: "Diagram") -> "Diagram":
        """Return the union."""
        return ~(~self & ~other)

    def __xor__(self, other: "Diagram") -> "Diagram":
        """Return what is in one of both only."""
        return (self & ~other) | (other & ~self)

    def __invert__(self) -> "Diagram":
        """Return the complement."""
        return self.book.complement(self)

    def any(self) -> bool:
        """Return whether there is any point in the set."""
        return self is not self.book.nothing

    def at(self, point: Sequence[int]) -> bool:
        """Return whether a point is in the set."""
        node = self
        while node.children:
            node = node.children[point[node.level]]
        return node is self.book.everything

    def along(self, axis: int) -> "tuple[Diagram, ...]":
        """Return, for each class along one axis, what is left of the set there."""
        return self.book.cut(self, axis)

    def count(self, counts: Sequence[Sequence[int]]) -> int:
        """Return how many points there are, if each class stands for so many of its axis."""
        totals = [sum(each) for each in counts]
        known: dict[Diagram, int] = {self.book.nothing: 0, self.book.everything: 1}

        def counted(node: Diagram) -> int:
            """Return the number along the axes from the node's own on."""
            if node not in known:
                weighed = zip(counts[node.level], node.children, strict=True)
                known[node] = sum(n * between(node.level + 1, child) for n, child in weighed if n)
            return known[node]

        def between(level: int, node: Diagram) -> int:
            number = counted(node)
            for total in totals[level : node.level] if number else ():
                number *= total
            return number

        return between(0, self)

    def nearest(self, weights: Sequence[Sequence[int]], most: int) -> list[tuple[int, Path]]:
        """Return the points of least weight (the sum over the axes), at most so many, least first."""
        known: dict[tuple[Diagram, int], list[tuple[int, Path]]] = {}

        def least(node: Diagram, level: int) -> list[tuple[int, Path]]:
            if level == len(weights):
                return [(0, ())] if node is self.book.everything else []
            if not node.any():
                return []
            key = node, level
            if key not in known:
                whole = node.level > level
                known[key] = heapq.nsmallest(
                    most,
                    (
                        (weight + further, (own, *path))
                        for own, weight in enumerate(weights[level])
                        for further, path in least(node if whole else node.children[own], level + 1)
                    ),
                )
            return known[key]

        return least(self, 0)

    def array(self) -> NDArray[np.bool_]:
        """Return the set as one truth value for each point; of length 1 along axes that it ignores."""
        sizes = self.book.sizes
        known: dict[Diagram, NDArray[np.bool_]] = {}

        def spread(node: Diagram) -> NDArray[np.bool_]:
            if node not in known:
                if not node.children:
                    value = node is self.book.everything
                    known[node] = np.full([1] * len(sizes), value)
                else:
                    parts = np.broadcast_arrays(*map(spread, node.children))
                    known[node] = np.concatenate(parts, axis=node.level)
            return known[node]

        return spread(self)


class Book:
    """All diagrams over the same axes; `sizes` are their numbers of classes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """Begin with the empty set and the whole one."""
        self.sizes = tuple(sizes)
        self.nothing = Diagram(self, len(sizes), ())
        self.everything = Diagram(self, len(sizes), ())
        self._nodes: dict[tuple[int, tuple[Diagram, ...]], Diagram] = {}
        self._both: dict[tuple[Diagram, Diagram], Diagram] = {}
        self._complements: dict[Diagram, Diagram] = {
            self.nothing: self.everything,
            self.everything: self.nothing,
        }
        self._cuts: dict[tuple[Diagram, int], tuple[Diagram, ...]] = {}

    def constant(self, value: bool) -> Diagram:
        """Return the whole set, or the empty one."""
        return self.everything if value else self.nothing

    def column(self, axis: int, values: Sequence[bool] | NDArray[np.bool_]) -> Diagram:
        """Return the points whose class along one axis is among those marked."""
        return self._node(axis, tuple(self.constant(bool(value)) for value in values))

    def both(self, one: Diagram, other: Diagram) -> Diagram:
        """Return the intersection of two sets."""
        if one is other or other is self.everything:
            return one
        if one is self.everything:
            return other
        if one is self.nothing or other is self.nothing:
            return self.nothing
        key = (one, other) if id(one) < id(other) else (other, one)
        found = self._both.get(key)
        if found is None:
            level = min(one.level, other.level)
            pairs = zip(self._children(one, level), self._children(other, level), strict=True)
            found = self._both[key] = self._node(level, tuple(self.both(a, b) for a, b in pairs))
        return found

    def complement(self, one: Diagram) -> Diagram:
        """Return all points that are not in a set."""
        found = self._complements.get(one)
        if found is None:
            found = self._node(one.level, tuple(map(self.complement, one.children)))
            self._complements[one] = found
            self._complements[found] = one
        return found

    def cut(self, one: Diagram, axis: int) -> tuple[Diagram, ...]:
        """Return what is left of a set at each class along one axis."""
        if one.level > axis:
            return (one,) * self.sizes[axis]
        if one.level == axis:
            return one.children
        key = one, axis
        found = self._cuts.get(key)
        if found is None:
            parts = zip(*(self.cut(child, axis) for child in one.children), strict=True)
            found = self._cuts[key] = tuple(self._node(one.level, children) for children in parts)
        return found

    def _children(self, one: Diagram, level: int) -> tuple[Diagram, ...]:
        return one.children if one.level == level else (one,) * self.sizes[level]

    def _node(self, level: int, children: tuple[Diagram, ...]) -> Diagram:
        first = children[0]
        if all(child is first for child in children):
            return first
        key = level, children
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = Diagram(self, level, children)
        return found
