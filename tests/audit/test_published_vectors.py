"""What others published to be checked against: RFC 6962 proofs, and the shapes that tlog-tiles states.

Seen to fail: without the check for `sn != 0` after the loops of either verification, and without
that of a leaf hash's length.
"""

import base64
import json
from pathlib import Path

import pytest

from audit import VerificationError
from audit.merkle import verify_consistency, verify_inclusion
from audit.tiles import split_bundle, split_hashes
from audit.tree import TileTree

VECTORS = json.loads((Path(__file__).parent / "vectors/proofs.json").read_text())

# Refused by those who published it, and accepted here: a witness that never saw a
# log is to accept `old 0` with an empty proof (C2SP tlog-witness).
FROM_NOTHING = "size1 is zero and size2 is not zero"


def verify(kind, first, second, one, other, proof):
    decoded = [base64.b64decode(text) if text else b"" for text in (one, other)]
    hashes = [base64.b64decode(text) for text in proof]
    if kind == "inclusion":
        verify_inclusion(decoded[0], first, second, hashes, decoded[1])
    else:
        verify_consistency(first, second, hashes, *decoded)


def test_every_published_proof_is_accepted_or_refused_as_it_should_be():
    accepted = 0
    for *vector, verifies, what in VECTORS:
        if verifies or what == FROM_NOTHING:
            verify(*vector)
            accepted += 1
        else:
            with pytest.raises(VerificationError):
                verify(*vector)
    assert (accepted, len(VECTORS)) == (13, 196)


# C2SP tlog-tiles, Partial Tiles: full tiles, and the width of the partial one, at each level.
SHAPES = [(70_000, [(273, 112), (1, 17), (0, 1)]), (256, [(1, 0), (0, 1)])]


@pytest.mark.parametrize(("size", "levels"), SHAPES)
def test_a_tree_has_the_tiles_that_the_specification_counts(tmp_path, size, levels):
    tree = TileTree(tmp_path)
    for number in range(size):
        tree.append(b"%d" % number)
    for level, (full, width) in enumerate(levels):
        assert all(len(split_hashes(tree.tile(level, n, 256))) == 256 for n in range(full))
        assert tree.tile(level, full, 256) is None
        if width:
            assert len(split_hashes(tree.tile(level, full, width))) == width
        assert tree.tile(level, full, width + 1) is None
    assert tree.tile(len(levels), 0, 1) is None
    full, width = levels[0]
    assert [len(list(split_bundle(tree.tile(None, n, 256)))) for n in range(full)] == [256] * full
    if width:
        assert list(split_bundle(tree.tile(None, full, width))) == [
            b"%d" % number for number in range(full * 256, size)
        ]
