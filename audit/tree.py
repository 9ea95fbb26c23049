"""The log's tree: complete tiles on disk, the growing right edge in memory.

Complete tiles wait in memory until they have been written, so reading never depends on how far the
writer has come.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.errors import LogCorrupt, RecordsPruned, VerificationError
from audit.merkle import HASH_BYTES, Frontier, fold_complete, leaf_hash, range_root
from audit.tiles import HEIGHT, WIDTH, bundle_entries, split_bundle, split_hashes, tile_path

CACHED_TILES: Final = 256


class TileTree:
    """Leaves and hashes of one log, by tile; appended to by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frontier = Frontier(self._completed, every=HEIGHT)
        # What no complete tile holds yet: hashes by tile level, and leaves.
        self._edge: list[list[bytes]] = [[]]
        self._leaves: list[bytes] = []
        self._unwritten: dict[str, bytes] = {}
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        # The log's minimum index: entry bundles below it are gone.
        self.minimum = 0

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._frontier.size

    def root(self) -> bytes:
        """Return the root hash over all leaves."""
        return self._frontier.root()

    def root_at(self, size: int) -> bytes:
        """Return the root hash over the first `size` leaves."""
        return range_root(0, size, self.node)

    def restore(self, size: int) -> None:
        """Take up the first `size` leaves, whole bundles of them, from disk.

        Raises:
            LogCorrupt: if a tile is missing or has the wrong size.
        """
        self._edge = [[]]
        level = 1
        while count := size >> (HEIGHT * level):
            start = count // WIDTH * WIDTH
            self._edge.append(
                [
                    fold_complete(split_hashes(self._complete(level - 1, index)))
                    for index in range(start, count)
                ]
            )
            level += 1
        self._frontier.restore(size, self.node)

    def append(self, leaf: bytes) -> None:
        """Add one leaf."""
        self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes], hashes: Sequence[bytes] | None = None) -> None:
        """Add leaves, in order; `hashes` are their leaf hashes, where they are known already."""
        if hashes is None:
            hashes = [leaf_hash(leaf) for leaf in leaves]
        start = 0
        while start < len(leaves):
            part = leaves[start : start + WIDTH - len(self._leaves)]
            its = hashes[start : start + len(part)]
            start += len(part)
            self._leaves += part
            if len(self._leaves) == WIDTH:
                index = self._frontier.size // WIDTH
                self._unwritten[tile_path(None, index)] = bundle_entries(self._leaves)
                self._leaves = []
            self._frontier.extend(its)

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the 2**level leaves from index * 2**level on."""
        tile_level, height = divmod(level, HEIGHT)
        per_tile = WIDTH >> height
        tile, position = divmod(index, per_tile)
        start = position << height
        hashes = self._hashes(tile_level, tile)[start : start + (1 << height)]
        return fold_complete(hashes)

    def tile(self, level: int | None, index: int, width: int) -> bytes | None:
        """Return a hash tile or entry bundle of the log as it is, or None if it is not there yet."""
        complete = (self.size if level is None else self.size >> (HEIGHT * level)) // WIDTH
        if index > complete or self.pruned(level, index):
            return None
        if index < complete:
            data = self._stored(tile_path(level, index))
            if width == WIDTH:
                return data
            # A partial tile of an earlier size is the beginning of the complete one.
            if level is None:
                leaves = list(split_bundle(data))[:width]
                return bundle_entries(leaves)
            return data[: width * HASH_BYTES]
        if level is None:
            return bundle_entries(self._leaves[:width]) if width <= len(self._leaves) else None
        edge = self._edge[level] if level < len(self._edge) else []
        return b"".join(edge[:width]) if width <= len(edge) else None

    def leaves(self, start: int, end: int) -> list[bytes]:
        """Return the leaves from `start` to `end`, both within the log.

        Raises:
            RecordsPruned: if the log does not go back to `start` any more.
        """
        if start < min(self.minimum, end):
            raise RecordsPruned(f"the log begins at record {self.minimum}: those before were pruned")
        found: list[bytes] = []
        for bundle in range(start // WIDTH, -(-end // WIDTH)):
            first = bundle * WIDTH
            if first >= self.size - self.size % WIDTH:
                own = self._leaves
            else:
                own = self.stored_bundle(bundle)
            found += own[max(start - first, 0) : end - first]
        return found

    def stored_bundle(self, index: int) -> list[bytes]:
        """Return the leaves of a complete entry bundle.

        Raises:
            LogCorrupt: if it is missing or not whole.
        """
        path = tile_path(None, index)
        try:
            leaves = list(split_bundle(self._stored(path)))
        except VerificationError as error:
            raise LogCorrupt(f"{path}: {error}") from error
        if len(leaves) != WIDTH:
            raise LogCorrupt(f"{path} is not a complete entry bundle")
        return leaves

    def pruned(self, level: int | None, index: int) -> bool:
        """Say whether this is an entry bundle that was pruned; hash tiles never are."""
        return level is None and index < self.minimum // WIDTH

    def prune(self, minimum: int) -> None:
        """Begin at `minimum` from now on; all complete tiles below it have been written."""
        self.minimum = minimum
        for path in [path for path in self._cache if path.startswith("tile/entries/")]:
            del self._cache[path]

    def unwritten(self) -> dict[str, bytes]:
        """Return the complete tiles that still have to be written, by path."""
        return dict(self._unwritten)

    def written(self, paths: list[str]) -> None:
        """Let go of complete tiles that are durable now."""
        for path in paths:
            self._unwritten.pop(path, None)

    def partial(self) -> dict[str, bytes]:
        """Return the partial tiles of the log as it is, by path."""
        tiles = {
            tile_path(level, (self.size >> (HEIGHT * level)) // WIDTH, len(edge)): b"".join(edge)
            for level, edge in enumerate(self._edge)
            if edge
        }
        if self._leaves:
            path = tile_path(None, self.size // WIDTH, len(self._leaves))
            tiles[path] = bundle_entries(self._leaves)
        return tiles

    def _completed(self, level: int, index: int, hash_: bytes) -> None:
        tile_level = level // HEIGHT
        if tile_level == len(self._edge):
            self._edge.append([])
        edge = self._edge[tile_level]
        edge.append(hash_)
        if len(edge) == WIDTH:
            self._unwritten[tile_path(tile_level, index // WIDTH)] = b"".join(edge)
            self._edge[tile_level] = []

    def _hashes(self, tile_level: int, tile: int) -> list[bytes]:
        if tile == (self.size >> (HEIGHT * tile_level)) // WIDTH:
            return self._edge[tile_level]
        return split_hashes(self._complete(tile_level, tile))

    def _complete(self, tile_level: int, tile: int) -> bytes:
        data = self._stored(tile_path(tile_level, tile))
        if len(data) != WIDTH * HASH_BYTES:
            raise LogCorrupt(f"{tile_path(tile_level, tile)} is not a complete tile")
        return data

    def _stored(self, path: str) -> bytes:
        data = self._unwritten.get(path) or self._cache.get(path)
        if data is None:
            try:
                data = (self._folder / path).read_bytes()
            except FileNotFoundError as error:
                raise LogCorrupt(f"{path} is missing") from error
            self._cache[path] = data
            if len(self._cache) > CACHED_TILES:
                self._cache.popitem(last=False)
        return data
