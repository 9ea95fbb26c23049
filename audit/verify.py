"""Checks a log's files as an outsider would: only the published formats and the log's public key."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosignature, WitnessKey, require_quorum
from audit.errors import VerificationError
from audit.merkle import Frontier, leaf_hash, range_root
from audit.minimum import read_minimum
from audit.note import NoteVerifier
from audit.publish import CHECKPOINT, COSIGNED
from audit.published import FileNodes, read_bundle, read_hashes
from audit.records import decode
from audit.tiles import HEIGHT, WIDTH, tile_path


class LogVerification(Struct, frozen=True, kw_only=True):
    """What was verified: `records` entries, up to the signed root, and who cosigned that.

    Of the first `minimum` records of a pruned log only the hashes are left: they are in the tree.
    `decision` is the record that says why. The witnesses saw the first `cosigned` records.
    """

    origin: str
    records: int
    root: str
    minimum: int = 0
    decision: str = ""
    cosigned: int = 0
    cosignatures: tuple[Cosignature, ...] = ()


def verify_log(
    folder: Path,
    verifier: NoteVerifier,
    *,
    witnesses: Sequence[WitnessKey] = (),
    quorum: int = 0,
) -> LogVerification:
    """Check the published log in `folder`: signatures, every tile, every record.

    The log may be in use; what is checked is the tree that its checkpoint signs. Where what the
    witnesses cosigned stands beside it, that is checked to be the beginning of the same tree.

    Raises:
        VerificationError: naming the first record, tile or signature that does not check, or if fewer
            than `quorum` of the `witnesses` cosigned.
    """
    # Read first: the log only grows meanwhile.
    seen = read_cosigned(folder, verifier)
    checkpoint = read_checkpoint(folder, verifier)
    cosignatures = require_quorum(seen.note, witnesses, quorum)
    minimum = read_minimum(folder, verifier)
    try:
        verified = verify_tree(folder, checkpoint, minimum.index)
    except VerificationError:
        # It may have been pruned since.
        before, minimum = minimum, read_minimum(folder, verifier)
        if minimum.index == before.index:
            raise
        verified = verify_tree(folder, checkpoint, minimum.index)
    nodes = FileNodes(folder, checkpoint.size)
    if seen.size > checkpoint.size or range_root(0, seen.size, nodes.node) != seen.root:
        raise VerificationError(
            f"the witnesses cosigned another history: its {seen.size} records are not those of the log"
        )
    return replace(
        verified,
        decision=minimum.decision,
        cosigned=seen.size,
        cosignatures=tuple(cosignatures),
    )


def verify_tree(folder: Path, checkpoint: Checkpoint, minimum: int = 0) -> LogVerification:
    """Check the tree that `checkpoint` signs against every tile and record in `folder`.

    Records below `minimum`, the log's minimum index, were pruned; their hashes are checked as all are.

    Raises:
        VerificationError: naming the first record or tile that does not check.
    """
    if minimum > checkpoint.size:
        raise VerificationError(
            f"the minimum index {minimum} lies behind the {checkpoint.size} records"
        )
    hashes: list[bytes] = []
    for tile, width in _widths(checkpoint.size):
        hashes += read_hashes(folder, 0, tile, width)
    root, levels = _tree_over(hashes)
    if root != checkpoint.root:
        raise _rewritten(folder, hashes, minimum)
    # The stored hashes are those that were signed, so a record that differs is what was changed.
    for tile, width in _widths(checkpoint.size, minimum):
        start = tile * WIDTH
        for index, leaf in enumerate(read_bundle(folder, tile, width), start):
            _check_record(index, leaf, hashes[index])
    for level, expected in levels.items():
        for tile, width in _widths(len(expected)):
            if read_hashes(folder, level, tile, width) != expected[tile * WIDTH :][:width]:
                raise VerificationError(f"{tile_path(level, tile, width)} was changed")
    return LogVerification(
        origin=checkpoint.origin,
        records=checkpoint.size - minimum,
        root=checkpoint.root.hex(),
        minimum=minimum,
    )


def read_checkpoint(folder: Path, verifier: NoteVerifier) -> Checkpoint:
    """Return the checkpoint published in `folder`, its signature verified.

    Raises:
        VerificationError: if there is none, or it does not verify.
    """
    try:
        note = (folder / CHECKPOINT).read_bytes()
    except OSError as error:
        raise VerificationError(f"{folder} has no published checkpoint") from error
    return open_checkpoint(note, [verifier])


def read_cosigned(folder: Path, verifier: NoteVerifier) -> Checkpoint:
    """Return the newest checkpoint in `folder` that witnesses saw, if the log has any.

    A log that waits for them publishes no other, and one that has none publishes what nobody saw.

    Raises:
        VerificationError: if there is none, or it does not verify.
    """
    try:
        note = (folder / COSIGNED).read_bytes()
    except FileNotFoundError:
        return read_checkpoint(folder, verifier)
    return open_checkpoint(note, [verifier])


def read_entries(folder: Path, size: int, minimum: int = 0) -> list[bytes]:
    """Return the entries of the published log in `folder` from `minimum` up to `size`, unverified.

    `minimum` is the log's minimum index, or 0 for a log that was never pruned.

    Raises:
        VerificationError: if they are not all there.
    """
    return [leaf for tile, width in _widths(size, minimum) for leaf in read_bundle(folder, tile, width)]


def _widths(count: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the tiles of one level that hold `count` hashes or entries, each with its width.

    `start`, a multiple of 256, leaves out the tiles before it.
    """
    for tile in range(start // WIDTH, -(-count // WIDTH)):
        yield tile, min(WIDTH, count - tile * WIDTH)


def _tree_over(hashes: Sequence[bytes]) -> tuple[bytes, dict[int, list[bytes]]]:
    """Return the root over `hashes`, and what the tiles of each level above 0 must hold."""
    levels: dict[int, list[bytes]] = {}

    def completed(level: int, _: int, hash_: bytes) -> None:
        if level:
            levels.setdefault(level // HEIGHT, []).append(hash_)

    frontier = Frontier(completed, every=HEIGHT)
    frontier.extend(hashes)
    return frontier.root(), levels


def _check_record(index: int, leaf: bytes, hash_: bytes) -> None:
    if leaf_hash(leaf) != hash_:
        raise VerificationError(f"record {index} was changed: it is not what the log hashed")
    try:
        decode(leaf)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"record {index} is not a valid record") from error


def _rewritten(folder: Path, hashes: Sequence[bytes], minimum: int) -> VerificationError:
    """Say, as closely as the files allow, which stored hashes are not those that were signed."""
    for tile, width in _widths(len(hashes), minimum):
        start = tile * WIDTH
        for index, leaf in enumerate(read_bundle(folder, tile, width), start):
            if leaf_hash(leaf) != hashes[index]:
                return VerificationError(
                    f"record {index} and its hash in {tile_path(0, tile, width)} differ, and the"
                    " stored hashes do not add up to the signed root"
                )
    return VerificationError(
        "the records and their hashes were rewritten together, or some were added or dropped:"
        " they do not add up to the signed root"
    )
