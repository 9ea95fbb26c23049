"""Merkle tree hashing and proofs (RFC 6962 section 2.1), over any source of stored hashes.

A tree is described by the hashes of its complete subtrees: `node(level, index)` is the root of the
2**level leaves from index * 2**level on. Everything here is pure.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from audit.errors import VerificationError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

NodeSource = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of one leaf: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first.

    Appending is amortised O(1); `completed` is told each complete node as it comes into being, of
    levels that are multiples of `every`.
    """

    def __init__(
        self, completed: Callable[[int, int, bytes], None] | None = None, *, every: int = 1
    ) -> None:
        self.size = 0
        self._edge: list[bytes] = []
        self._completed = completed
        self._every = every

    def append(self, hash_: bytes) -> None:
        """Add one leaf by its hash."""
        self.extend((hash_,))

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Add leaves by their hashes."""
        # Every request that is answered passes here: 2 us a leaf, and 8 us with calls in the loop.
        edge, completed, every, sha256 = self._edge, self._completed, self._every, hashlib.sha256
        for hash_ in hashes:
            node, index = hash_, self.size
            self.size = index + 1
            if completed is not None:
                completed(0, index, hash_)
            level = 0
            while index & 1:
                node = sha256(b"\x01" + edge.pop() + node).digest()
                level, index = level + 1, index >> 1
                if completed is not None and not level % every:
                    completed(level, index, node)
            edge.append(node)

    def restore(self, size: int, node: NodeSource) -> None:
        """Take up a tree of `size` leaves, whose complete subtrees `node` gives."""
        self.size = size
        self._edge = [node(level, index) for level, index in subtrees(0, size)]

    def root(self) -> bytes:
        """Return the root hash of the tree as it is."""
        return fold(self._edge)


def fold(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, given largest first."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root


def fold_complete(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power of two of hashes, level by level."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Return the complete subtrees (level, index) that cover the leaves from start to end.

    `start` must be a multiple of the largest power of two that is smaller than `end - start`, as it
    is for every range that RFC 6962 proofs use.
    """
    cover = []
    while start < end:
        level = (end - start).bit_length() - 1
        cover.append((level, start >> level))
        start += 1 << level
    return cover


def range_root(start: int, end: int, node: NodeSource) -> bytes:
    """Return MTH(D[start:end])."""
    return fold([node(level, index) for level, index in subtrees(start, end)])


def inclusion_proof(index: int, tree_size: int, node: NodeSource) -> list[bytes]:
    """Return PATH(index, D[tree_size]) of RFC 6962 section 2.1.1, leaf side first.

    Raises:
        ValueError: if there is no such leaf.
    """
    if not 0 <= index < tree_size:
        raise ValueError(f"there is no leaf {index} in a tree of {tree_size}")
    proof: list[bytes] = []
    start, end = 0, tree_size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            proof.append(range_root(split, end, node))
            end = split
        else:
            proof.append(range_root(start, split, node))
            start = split
    proof.reverse()
    return proof


def consistency_proof(first: int, second: int, node: NodeSource) -> list[bytes]:
    """Return PROOF(first, D[second]) of RFC 6962 section 2.1.2.

    Raises:
        ValueError: unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError(f"no consistency proof leads from {first} to {second}")
    proof: list[bytes] = []
    start, end = 0, second
    while first != end:
        split = start + _split(end - start)
        if first <= split:
            proof.append(range_root(split, end, node))
            end = split
        else:
            proof.append(range_root(start, split, node))
            start = split
    if start != 0:
        # The old tree's right edge is not a whole left part of the new one: name it.
        proof.append(range_root(start, end, node))
    proof.reverse()
    return proof


def verify_inclusion(
    leaf: bytes, index: int, tree_size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf hash `leaf` stands at `index` under `root` (RFC 9162 section 2.1.3.2).

    Raises:
        VerificationError: if it does not.
    """
    if not 0 <= index < tree_size:
        raise VerificationError(f"record {index} lies outside a tree of {tree_size}")
    fn, sn, result = index, tree_size - 1, leaf
    for hash_ in proof:
        if sn == 0:
            raise VerificationError(f"record {index}: the proof is too long")
        if fn & 1 or fn == sn:
            result = node_hash(hash_, result)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            result = node_hash(result, hash_)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0 or result != root or len(leaf) != HASH_BYTES:
        raise VerificationError(f"record {index} is not what the log's root commits to")


def verify_consistency(
    first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes
) -> None:
    """Check that the tree of `second` leaves extends that of `first` (RFC 9162 section 2.1.4.2).

    Raises:
        VerificationError: if it does not.
    """
    failed = VerificationError(f"the log of {second} records does not extend that of {first}")
    if first > second or first < 0:
        raise failed
    if first == 0 and first_root != EMPTY_ROOT:
        raise failed
    if first in (0, second):
        if proof or (first == second and first_root != second_root):
            raise failed
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise failed
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for hash_ in path[1:]:
        if sn == 0:
            raise failed
        if fn & 1 or fn == sn:
            old, new = node_hash(hash_, old), node_hash(hash_, new)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, hash_)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0 or old != first_root or new != second_root:
        raise failed


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)
