"""Checks a log's files as an outsider would: only the published formats and the log's public key."""

from pathlib import Path

import msgspec
from msgspec import Struct

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import VerificationError
from audit.merkle import HASH_BYTES, Frontier, leaf_hash
from audit.note import NoteVerifier
from audit.publish import CHECKPOINT
from audit.records import decode
from audit.tiles import HEIGHT, WIDTH, split_bundle, tile_path


class LogVerification(Struct, frozen=True, kw_only=True):
    """What was verified: `records` entries, up to the signed root."""

    origin: str
    records: int
    root: str


def verify_log(folder: Path, verifier: NoteVerifier) -> LogVerification:
    """Check the published log in `folder`: signature, every tile, every record.

    Raises:
        VerificationError: naming the first record, tile or signature that does not check.
    """
    checkpoint = read_checkpoint(folder, verifier)
    hashes = _stored_leaf_hashes(folder, checkpoint.size)
    _check_records(folder, checkpoint.size, hashes)
    _check_tree(folder, checkpoint, hashes)
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
    """Return the first `size` entries of the published log in `folder`, unverified."""
    entries: list[bytes] = []
    for bundle in range(-(-size // WIDTH)):
        count = min(WIDTH, size - bundle * WIDTH)
        entries += list(split_bundle(_read(folder, None, bundle, count)))[:count]
    return entries


def _stored_leaf_hashes(folder: Path, size: int) -> list[bytes]:
    hashes: list[bytes] = []
    for tile in range(-(-size // WIDTH)):
        count = min(WIDTH, size - tile * WIDTH)
        hashes += _hashes(_read(folder, 0, tile, count), count, tile_path(0, tile, count))
    return hashes


def _check_records(folder: Path, size: int, hashes: list[bytes]) -> None:
    for bundle in range(-(-size // WIDTH)):
        count = min(WIDTH, size - bundle * WIDTH)
        start = bundle * WIDTH
        try:
            leaves = list(split_bundle(_read(folder, None, bundle, count)))
        except VerificationError as error:
            raise VerificationError(f"records {start} to {start + count - 1}: {error}") from error
        for position in range(count):
            index = start + position
            if position >= len(leaves) or leaf_hash(leaves[position]) != hashes[index]:
                raise VerificationError(f"record {index} was changed: it is not what the log hashed")
            try:
                decode(leaves[position])
            except msgspec.MsgspecError as error:
                raise VerificationError(f"record {index} is not a valid record") from error
        if len(leaves) != count:
            raise VerificationError(f"there are entries behind record {start + count - 1}")


def _check_tree(folder: Path, checkpoint: Checkpoint, hashes: list[bytes]) -> None:
    levels: dict[int, list[bytes]] = {}

    def completed(level: int, _: int, hash_: bytes) -> None:
        tile_level, rest = divmod(level, HEIGHT)
        if not rest and tile_level:
            levels.setdefault(tile_level, []).append(hash_)

    frontier = Frontier(completed)
    for hash_ in hashes:
        frontier.append(hash_)
    if frontier.root() != checkpoint.root:
        raise VerificationError("the stored hashes do not add up to the signed root")
    for level, expected in levels.items():
        for tile in range(-(-len(expected) // WIDTH)):
            count = min(WIDTH, len(expected) - tile * WIDTH)
            path = tile_path(level, tile, count)
            stored = _hashes(_read(folder, level, tile, count), count, path)
            if stored != expected[tile * WIDTH : tile * WIDTH + count]:
                raise VerificationError(f"{path} was changed")


def _read(folder: Path, level: int | None, index: int, width: int) -> bytes:
    for candidate in (tile_path(level, index, width), tile_path(level, index)):
        path = folder / candidate
        if path.is_file():
            return path.read_bytes()
    raise VerificationError(f"{tile_path(level, index, width)} is missing")


def _hashes(tile: bytes, count: int, path: str) -> list[bytes]:
    if len(tile) < count * HASH_BYTES:
        raise VerificationError(f"{path} is too short")
    return [tile[n * HASH_BYTES : (n + 1) * HASH_BYTES] for n in range(count)]
