"""Checks a log's files as an outsider would: only the published formats and the log's public key."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import VerificationError
from audit.merkle import Frontier, leaf_hash
from audit.note import NoteVerifier
from audit.publish import CHECKPOINT
from audit.published import read_bundle, read_hashes
from audit.records import decode
from audit.tiles import HEIGHT, WIDTH, tile_path


class LogVerification(Struct, frozen=True, kw_only=True):
    """What was verified: `records` entries, up to the signed root."""

    origin: str
    records: int
    root: str


def verify_log(folder: Path, verifier: NoteVerifier) -> LogVerification:
    """Check the published log in `folder`: signature, every tile, every record.

    The log may be in use; what is checked is the tree that its checkpoint signs.

    Raises:
        VerificationError: naming the first record, tile or signature that does not check.
    """
    return verify_tree(folder, read_checkpoint(folder, verifier))


def verify_tree(folder: Path, checkpoint: Checkpoint) -> LogVerification:
    """Check the tree that `checkpoint` signs against every tile and record in `folder`.

    Raises:
        VerificationError: naming the first record or tile that does not check.
    """
    hashes: list[bytes] = []
    for tile, width in _widths(checkpoint.size):
        hashes += read_hashes(folder, 0, tile, width)
    root, levels = _tree_over(hashes)
    if root != checkpoint.root:
        raise _rewritten(folder, hashes)
    # The stored hashes are those that were signed, so a record that differs is what was changed.
    for tile, width in _widths(checkpoint.size):
        start = tile * WIDTH
        for index, leaf in enumerate(read_bundle(folder, tile, width), start):
            _check_record(index, leaf, hashes[index])
    for level, expected in levels.items():
        for tile, width in _widths(len(expected)):
            if read_hashes(folder, level, tile, width) != expected[tile * WIDTH :][:width]:
                raise VerificationError(f"{tile_path(level, tile, width)} was changed")
    return LogVerification(
        origin=checkpoint.origin, records=checkpoint.size, root=checkpoint.root.hex()
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


def read_entries(folder: Path, size: int) -> list[bytes]:
    """Return the first `size` entries of the published log in `folder`, unverified.

    Raises:
        VerificationError: if they are not all there.
    """
    return [leaf for tile, width in _widths(size) for leaf in read_bundle(folder, tile, width)]


def _widths(count: int) -> Iterator[tuple[int, int]]:
    """Yield the tiles of one level that hold `count` hashes or entries, each with its width."""
    for tile in range(-(-count // WIDTH)):
        yield tile, min(WIDTH, count - tile * WIDTH)


def _tree_over(hashes: Sequence[bytes]) -> tuple[bytes, dict[int, list[bytes]]]:
    """Return the root over `hashes`, and what the tiles of each level above 0 must hold."""
    levels: dict[int, list[bytes]] = {}

    def completed(level: int, _: int, hash_: bytes) -> None:
        tile_level, rest = divmod(level, HEIGHT)
        if not rest and tile_level:
            levels.setdefault(tile_level, []).append(hash_)

    frontier = Frontier(completed)
    for hash_ in hashes:
        frontier.append(hash_)
    return frontier.root(), levels


def _check_record(index: int, leaf: bytes, hash_: bytes) -> None:
    if leaf_hash(leaf) != hash_:
        raise VerificationError(f"record {index} was changed: it is not what the log hashed")
    try:
        decode(leaf)
    except msgspec.MsgspecError as error:
        raise VerificationError(f"record {index} is not a valid record") from error


def _rewritten(folder: Path, hashes: Sequence[bytes]) -> VerificationError:
    """Say, as closely as the files allow, which stored hashes are not those that were signed."""
    for tile, width in _widths(len(hashes)):
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
