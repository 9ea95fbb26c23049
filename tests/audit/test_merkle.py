import functools
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import VerificationError
from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The leaves and roots that Certificate Transparency's reference implementations test with.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


class Tree:
    def __init__(self, size: int) -> None:
        self.leaves = [n.to_bytes(4, "big") for n in range(size)]
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [EMPTY_ROOT]
        frontier = Frontier(lambda level, index, hash_: self.nodes.__setitem__((level, index), hash_))
        for leaf in self.leaves:
            frontier.append(leaf_hash(leaf))
            self.roots.append(frontier.root())

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


TREE = Tree(2000)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size):
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf_hash(leaf))
    assert frontier.root().hex() == ROOTS[size - 1]


def test_roots_are_the_recursive_definition():
    for size in (*range(130), 255, 256, 257, 511, 512, 1023, 1999, 2000):
        assert TREE.roots[size] == mth(TREE.leaves[:size])


@given(st.integers(1, 2000), st.data())
def test_inclusion_proofs_verify_and_nothing_else_does(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, TREE.node)
    leaf = leaf_hash(TREE.leaves[index])
    verify_inclusion(leaf, index, size, proof, TREE.roots[size])
    with pytest.raises(VerificationError, match=f"record {index} "):
        verify_inclusion(leaf_hash(b"another"), index, size, proof, TREE.roots[size])
    if size > 1:
        other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
        with pytest.raises(VerificationError):
            verify_inclusion(leaf, other, size, proof, TREE.roots[size])
        with pytest.raises(VerificationError):
            verify_inclusion(leaf, index, size, proof[:-1], TREE.roots[size])


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_consistency_proofs_verify_and_a_rewritten_past_does_not(one, other):
    first, second = sorted((one, other))
    proof = consistency_proof(first, second, TREE.node)
    verify_consistency(first, second, proof, TREE.roots[first], TREE.roots[second])
    with pytest.raises(VerificationError):
        verify_consistency(first, second, proof, leaf_hash(b"x"), TREE.roots[second])


def test_proofs_of_leaves_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no leaf 5"):
        inclusion_proof(5, 5, TREE.node)
    with pytest.raises(VerificationError, match="outside"):
        verify_inclusion(leaf_hash(b""), 5, 5, [], TREE.roots[5])


# Proofs over LEAVES that Google's certificate-transparency tests with (merkle_tree_test.cc):
# leaf and size, or first and second size, and the hashes.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, INCLUSION[1][2]),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
PUBLISHED: dict[tuple[int, int], bytes] = {}
_published = Frontier(lambda level, index, hash_: PUBLISHED.__setitem__((level, index), hash_))
for _leaf in LEAVES:
    _published.append(leaf_hash(_leaf))


def published_node(level, index):
    return PUBLISHED[level, index]


@pytest.mark.parametrize(("index", "size", "hashes"), INCLUSION)
def test_inclusion_proofs_are_those_of_certificate_transparency(index, size, hashes):
    proof = [bytes.fromhex(text) for text in hashes]
    assert inclusion_proof(index, size, published_node) == proof
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("first", "second", "hashes"), CONSISTENCY)
def test_consistency_proofs_are_those_of_certificate_transparency(first, second, hashes):
    proof = [bytes.fromhex(text) for text in hashes]
    assert consistency_proof(first, second, published_node) == proof
    verify_consistency(
        first, second, proof, bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1])
    )


@functools.cache
def mth_of(start, end):
    """MTH(D[start:end]) over TREE's leaves, as RFC 6962 defines it."""
    if end - start == 1:
        return leaf_hash(TREE.leaves[start])
    k = power_below(end - start)
    return node_hash(mth_of(start, start + k), mth_of(start + k, end))


def power_below(size):
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def path_of(index, start, end):
    """PATH(m, D[n]) of RFC 6962 section 2.1.1, word for word."""
    if end - start == 1:
        return []
    k = power_below(end - start)
    if index < k:
        return [*path_of(index, start, start + k), mth_of(start + k, end)]
    return [*path_of(index - k, start + k, end), mth_of(start, start + k)]


def subproof_of(first, start, end, whole):
    """SUBPROOF(m, D[n], b) of RFC 6962 section 2.1.2, word for word."""
    if first == end - start:
        return [] if whole else [mth_of(start, end)]
    k = power_below(end - start)
    if first <= k:
        return [*subproof_of(first, start, start + k, whole), mth_of(start + k, end)]
    return [*subproof_of(first - k, start + k, end, False), mth_of(start, start + k)]


SIZES = range(1, 201)


def test_every_inclusion_proof_up_to_200_leaves_is_the_recursive_definition():
    for size in SIZES:
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.node)
            assert proof == path_of(index, 0, size), (index, size)
            verify_inclusion(leaf_hash(TREE.leaves[index]), index, size, proof, TREE.roots[size])


def test_every_consistency_proof_up_to_200_leaves_is_the_recursive_definition():
    for second in SIZES:
        for first in range(1, second + 1):
            proof = consistency_proof(first, second, TREE.node)
            assert proof == subproof_of(first, 0, second, True), (first, second)
            verify_consistency(first, second, proof, TREE.roots[first], TREE.roots[second])


def places(size):
    """Leaves whose proofs differ in shape: both ends, beside each power of two, and some at random."""
    chosen = random.Random(size)
    powers = [1 << bit for bit in range(size.bit_length())]
    near = {0, size - 1, *powers, *(size - power for power in powers), *(p - 1 for p in powers)}
    return {*(n for n in near if 0 <= n < size), *(chosen.randrange(size) for _ in range(3))}


def test_roots_and_proofs_at_every_size_up_to_2000_are_the_recursive_definition():
    """Seen to fail: with `first < split` in `consistency_proof`."""
    for size in range(1, 2001):
        assert TREE.roots[size] == mth_of(0, size), size
        for index in places(size):
            proof = inclusion_proof(index, size, TREE.node)
            assert proof == path_of(index, 0, size), (index, size)
            verify_inclusion(leaf_hash(TREE.leaves[index]), index, size, proof, TREE.roots[size])
            first = index + 1
            proof = consistency_proof(first, size, TREE.node)
            assert proof == subproof_of(first, 0, size, True), (first, size)
            verify_consistency(first, size, proof, TREE.roots[first], TREE.roots[size])


@given(st.integers(2, 2000), st.data())
def test_no_changed_proof_verifies(size, data):
    """Any hash changed, dropped, added or moved makes a proof worthless."""
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size - 1))
    leaf = leaf_hash(TREE.leaves[index])
    for proof, verify in (
        (
            inclusion_proof(index, size, TREE.node),
            lambda p: verify_inclusion(leaf, index, size, p, TREE.roots[size]),
        ),
        (
            consistency_proof(first, size, TREE.node),
            lambda p: verify_consistency(first, size, p, TREE.roots[first], TREE.roots[size]),
        ),
    ):
        place = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[place][0] ^ 1]) + proof[place][1:]
        changed = [
            [*proof[:place], flipped, *proof[place + 1 :]],
            [*proof[:place], *proof[place + 1 :]],
            [*proof[:place], proof[place], *proof[place:]],
            [*proof, proof[-1]],
            [*proof, EMPTY_ROOT],
            [],
        ]
        for other in changed:
            with pytest.raises(VerificationError):
                verify(other)


@pytest.mark.parametrize(
    ("first", "second", "proof", "first_root", "second_root"),
    [
        (0, 5, [b"x" * 32], EMPTY_ROOT, TREE.roots[5]),
        (0, 5, [], TREE.roots[1], TREE.roots[5]),
        (5, 5, [], TREE.roots[4], TREE.roots[5]),
        (5, 5, [b"x" * 32], TREE.roots[5], TREE.roots[5]),
        (6, 5, [], TREE.roots[6], TREE.roots[5]),
        (-1, 5, [], EMPTY_ROOT, TREE.roots[5]),
        (3, 5, [], TREE.roots[3], TREE.roots[5]),
    ],
)
def test_consistency_at_the_edges_is_refused(first, second, proof, first_root, second_root):
    with pytest.raises(VerificationError, match="does not extend"):
        verify_consistency(first, second, proof, first_root, second_root)


def test_an_empty_log_is_extended_by_every_log():
    verify_consistency(0, 5, [], EMPTY_ROOT, TREE.roots[5])
    verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
