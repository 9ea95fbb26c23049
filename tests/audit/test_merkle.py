import hashlib

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


def test_every_root_up_to_2000_is_the_recursive_definition():
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
