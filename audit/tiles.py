"""Tiles (C2SP tlog-tiles): where a log's hashes and entries are, and how entries are bundled."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from audit.errors import VerificationError
from audit.merkle import HASH_BYTES

WIDTH: Final = 256
HEIGHT: Final = 8
ENTRY_MAX_BYTES: Final = 0xFFFF

_LENGTH_BYTES: Final = 2
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])"
    r"/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


def tile_path(level: int | None, index: int, width: int = WIDTH) -> str:
    """Return the path of a hash tile, or of an entry bundle where `level` is None."""
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    partial = f".p/{width}" if width < WIDTH else ""
    return f"tile/{'entries' if level is None else level}/{name}{partial}"


def parse_tile_path(path: str) -> tuple[int | None, int, int] | None:
    """Return level (None for entries), index and width of a tile's path, or None if it is no such."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"]) if match["width"] else WIDTH
    level = None if match["level"] == "entries" else int(match["level"])
    # Only one spelling is a path of the log: no needless leading groups, no `.p/256`.
    return (level, index, width) if tile_path(level, index, width) == path else None


def split_hashes(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [tile[start : start + HASH_BYTES] for start in range(0, len(tile), HASH_BYTES)]


def bundle_entries(leaves: Iterable[bytes]) -> bytes:
    """Return an entry bundle: each leaf behind its length, a big-endian uint16."""
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves)


def split_bundle(bundle: bytes) -> Iterator[bytes]:
    """Yield the leaves of an entry bundle.

    Raises:
        VerificationError: if it ends in the middle of one.
    """
    offset = 0
    while offset < len(bundle):
        start = offset + _LENGTH_BYTES
        end = start + int.from_bytes(bundle[offset:start], "big")
        if start > len(bundle) or end > len(bundle):
            raise VerificationError("an entry bundle ends in the middle of an entry")
        yield bundle[start:end]
        offset = end
