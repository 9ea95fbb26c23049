"""Reads a published log's files: tiles and entry bundles, as C2SP tlog-tiles lays them out.

The log may go on being written meanwhile. A partial tile can give way to the complete one that begins
with it, so where the one is gone the other is read.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from audit.errors import VerificationError
from audit.merkle import HASH_BYTES, fold_complete
from audit.tiles import HEIGHT, WIDTH, split_bundle, split_hashes, tile_path

CACHED_TILES: Final = 256


def read_hashes(folder: Path, level: int, index: int, width: int) -> list[bytes]:
    """Return the first `width` hashes of a tile.

    Raises:
        VerificationError: if the tile is missing or has another size.
    """
    path, stored_width, data = _read(folder, level, index, width)
    if len(data) != stored_width * HASH_BYTES:
        raise VerificationError(f"{path} does not have {stored_width} hashes")
    return split_hashes(data)[:width]


def read_bundle(folder: Path, index: int, width: int) -> Iterator[bytes]:
    """Yield the first `width` entries of a bundle, each before the next is looked at.

    Raises:
        VerificationError: if the bundle is missing or not whole; names the record where it breaks.
    """
    path, stored_width, data = _read(folder, None, index, width)
    start = index * WIDTH
    count = 0
    try:
        for leaf in split_bundle(data):
            if count < width:
                yield leaf
            count += 1
    except VerificationError as error:
        raise VerificationError(f"record {start + count} was changed: {error}") from error
    if count != stored_width:
        raise VerificationError(
            f"{path} holds {count} records from record {start} on instead of {stored_width}"
        )


def _read(folder: Path, level: int | None, index: int, width: int) -> tuple[str, int, bytes]:
    for stored_width in (width, WIDTH):
        path = tile_path(level, index, stored_width)
        try:
            return path, stored_width, (folder / path).read_bytes()
        except FileNotFoundError:
            continue
    raise VerificationError(f"{tile_path(level, index, width)} is missing")


class FileNodes:
    """Complete subtrees of a published log of `size` entries, read from its hash tiles."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._tiles: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._folded: dict[tuple[int, int], bytes] = {}

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the 2**level leaves from index * 2**level on.

        Raises:
            VerificationError: if the tile that holds it is missing.
        """
        known = self._folded.get((level, index))
        if known is None:
            tile_level, height = divmod(level, HEIGHT)
            tile, position = divmod(index, WIDTH >> height)
            start = position << height
            hashes = self._tile(tile_level, tile)[start : start + (1 << height)]
            known = self._folded[level, index] = fold_complete(hashes)
        return known

    def _tile(self, level: int, index: int) -> list[bytes]:
        hashes = self._tiles.get((level, index))
        if hashes is None:
            width = min(WIDTH, (self._size >> (HEIGHT * level)) - index * WIDTH)
            hashes = self._tiles[level, index] = read_hashes(self._folder, level, index, width)
            if len(self._tiles) > CACHED_TILES:
                self._tiles.popitem(last=False)
        return hashes
