"""Decision diagrams against the plainest thing they could be: arrays of one truth value a point."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from policies.proofs.diagram import Book

SIZES = (3, 1, 4, 2)
COLUMNS = st.sampled_from([n for n, size in enumerate(SIZES) if size > 1]).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.booleans(), min_size=SIZES[n], max_size=SIZES[n]))
)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from("&|^~"), st.integers(0, 99), st.integers(0, 99)), max_size=12
)
POINTS = list(itertools.product(*map(range, SIZES)))
WEIGHTS = [[2, 0, 5], [1], [0, 0, 3, 1], [4, 2]]
COUNTS = [[10**9, 1, 7], [10**6], [3, 10**9, 0, 2], [5, 10**9]]


def made(columns, operations):
    """Return sets as diagrams and as arrays, built alike."""
    book = Book(SIZES)
    diagrams = [book.nothing, book.everything, *(book.column(n, values) for n, values in columns)]
    arrays = [np.zeros(SIZES, bool), np.ones(SIZES, bool)]
    for n, values in columns:
        shape = [-1 if each == n else 1 for each in range(len(SIZES))]
        arrays.append(np.broadcast_to(np.array(values).reshape(shape), SIZES))
    for name, one, other in operations:
        a, b = one % len(diagrams), other % len(diagrams)
        diagrams.append(
            {
                "&": lambda a=a, b=b: diagrams[a] & diagrams[b],
                "|": lambda a=a, b=b: diagrams[a] | diagrams[b],
                "^": lambda a=a, b=b: diagrams[a] ^ diagrams[b],
                "~": lambda a=a: ~diagrams[a],
            }[name]()
        )
        arrays.append(
            {"&": arrays[a] & arrays[b], "|": arrays[a] | arrays[b], "^": arrays[a] ^ arrays[b]}.get(
                name, ~arrays[a]
            )
        )
    return diagrams, arrays


@given(columns=st.lists(COLUMNS, max_size=5), operations=OPERATIONS)
def test_a_diagram_is_the_set_that_it_stands_for(columns, operations):
    diagrams, arrays = made(columns, operations)
    for diagram, array in zip(diagrams, arrays, strict=True):
        assert [diagram.at(point) for point in POINTS] == [bool(array[point]) for point in POINTS]
        assert diagram.any() == array.any()
        assert np.array_equal(np.broadcast_to(diagram.array(), SIZES), array)
        for n, size in enumerate(SIZES):
            parts = diagram.along(n)
            assert len(parts) == size
            for own, part in enumerate(parts):
                whole = np.repeat(np.take(array, [own], axis=n), size, axis=n)
                assert np.array_equal(np.broadcast_to(part.array(), SIZES), whole)
    # Equal sets are one object: that is how two judgements are compared.
    for one, other in itertools.product(range(len(diagrams)), repeat=2):
        assert (diagrams[one] is diagrams[other]) == np.array_equal(arrays[one], arrays[other])


@given(columns=st.lists(COLUMNS, max_size=5), operations=OPERATIONS, most=st.integers(1, 5))
def test_points_are_counted_exactly_and_the_least_are_found_in_order(columns, operations, most):
    diagrams, arrays = made(columns, operations)
    for diagram, array in zip(diagrams, arrays, strict=True):
        inside = [point for point in POINTS if array[point]]
        number = sum(COUNTS[0][a] * COUNTS[1][b] * COUNTS[2][c] * COUNTS[3][d] for a, b, c, d in inside)
        assert diagram.count(COUNTS) == number
        far = sorted((sum(w[n] for w, n in zip(WEIGHTS, p, strict=True)), p) for p in inside)
        assert diagram.nearest(WEIGHTS, most) == far[:most]
