"""The write-ahead log: where records become durable, before anything else is done with them.

Segments `<first index>.wal` hold frames: length and CRC-32 of the leaf (big-endian uint32 each), then
the leaf. A segment is filled with zeros when it is made, because overwriting costs half of what
appending does (measured, ext4: fdatasync of 8 KB takes 148 us instead of 304 us). A length of zero ends
it. Only the last frames of the last segment can be torn by a crash; they were never answered.
"""

import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.errors import LogCorrupt
from audit.writeback import start_writing

SEGMENT_BYTES: Final = 4 * 1024 * 1024

# By the time a segment is let go of, the system has long written the tiles that hold its records, and
# making them durable costs next to nothing; at once it would stall every waiting writer.
SEGMENTS_KEPT: Final = 16

_COMPACTED: Final = "compacted.tmp"
_FRAME: Final = struct.Struct(">II")


class WriteAheadLog:
    """Appends leaves to the last segment; one thread appends, another may prepare and release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spare = folder / "spare"
        self._making = threading.Lock()
        self._file: int | None = None
        self._durable_bytes = 0
        self._begun_bytes = 0
        self._segments: list[tuple[int, Path]] = []
        self._dirty = False

    def open(self, minimum: int = 0) -> tuple[int, list[bytes]]:
        """Open the segments; return the index of the first leaf they hold, and the leaves.

        Torn frames at the very end are cut off, and what is left of leaves before `minimum` is removed.

        Raises:
            LogCorrupt: if a frame before the last segment's end does not check, or one is missing.
            OSError: if the folder or a segment cannot be read or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self._folder.parent)
        (self._folder / _COMPACTED).unlink(missing_ok=True)
        found = sorted((_first_index(path), path) for path in self._folder.glob("*.wal"))
        while len(found) > 1 and found[1][0] <= minimum:
            found.pop(0)[1].unlink()
            sync_folder(self._folder)
        leaves: list[bytes] = []
        first = found[0][0] if found else 0
        for position, (start, path) in enumerate(found):
            if start != first + len(leaves):
                raise LogCorrupt(f"the write-ahead log lacks record {first + len(leaves)}")
            read, valid_bytes, clean = _read_segment(path)
            if not clean and position < len(found) - 1:
                raise LogCorrupt(f"record {start + len(read)} of the write-ahead log is damaged")
            leaves += read
            self._durable_bytes = valid_bytes
        self._segments = found
        if not found:
            self._add_segment(0)
        else:
            self._file = os.open(found[-1][1], os.O_WRONLY)
            self._dirty = True
            try:
                self.cut()
                self.compact(minimum)
            except OSError:
                os.close(self._file)
                self._file = None
                raise
        gone = max(minimum - first, 0)
        return first + gone, leaves[gone:]

    @property
    def full(self) -> bool:
        """Whether the next append begins a new segment, which takes longer than any other."""
        return self._durable_bytes >= SEGMENT_BYTES

    def begin(self, leaves: Sequence[bytes], next_index: int) -> None:
        """Send `leaves` on their way to the disk; they are durable once `finish` has returned.

        The first of them has the index `next_index`.

        Raises:
            OSError: if that fails; nothing of them counts then.
        """
        self.cut()
        if self.full:
            self._add_segment(next_index)
        data = _framed(leaves)
        file = self._descriptor()
        self._dirty = True
        _write(file, data, self._durable_bytes)
        start_writing(file, self._durable_bytes, len(data))
        self._begun_bytes = len(data)

    def finish(self) -> None:
        """Wait until what was begun is durable.

        Raises:
            OSError: if that fails; nothing of it counts then.
        """
        os.fdatasync(self._descriptor())
        self.finished()

    @property
    def file(self) -> int:
        """The segment that is written, for whoever has what was begun made durable otherwise."""
        return self._descriptor()

    def finished(self) -> None:
        """Take note that what was begun is durable."""
        self._durable_bytes += self._begun_bytes
        self._dirty = False

    def prepare(self) -> None:
        """Make the next segment ahead of time, if the current one is half full.

        May run beside `begin`, which waits for it where both need the same segment.

        Raises:
            OSError: if that fails; the segment is then made when it is needed.
        """
        if self._durable_bytes >= SEGMENT_BYTES // 2:
            self._make_spare()

    def releasable(self) -> int | None:
        """Return how many records must be durable in tiles before the oldest segment may go."""
        return self._segments[1][0] if len(self._segments) > SEGMENTS_KEPT else None

    def release(self) -> None:
        """Remove the oldest segment; may run beside `begin`, which only ever touches the last.

        Raises:
            OSError: if that fails.
        """
        self._segments[0][1].unlink(missing_ok=True)
        # One by one and in order: a later segment that goes first would leave a gap behind.
        sync_folder(self._folder)
        self._segments.pop(0)

    def compact(self, first: int) -> None:
        """Remove every leaf before `first` from the disk; not beside `begin`.

        The segment in which `first` stands is written again without them. It is put in place before the
        one that it replaces goes: `open` knows both by the minimum index, which is durable by then.

        Raises:
            OSError: if that fails; `open` and a further call go on with it.
        """
        self.cut()
        while len(self._segments) > 1 and self._segments[1][0] <= first:
            self.release()
        start, path = self._segments[0]
        if start >= first:
            return
        kept = _framed(_read_segment(path)[0][first - start :])
        target = self._folder / f"{first:020}.wal"
        _make(target, kept, self._folder / _COMPACTED)
        sync_folder(self._folder)
        self._segments[0] = (first, target)
        if len(self._segments) == 1:
            os.close(self._descriptor())
            self._file = os.open(target, os.O_WRONLY)
            self._durable_bytes = len(kept)
        path.unlink()
        sync_folder(self._folder)

    def cut(self) -> None:
        """Remove what a failed append may have left behind: a frame in it must never come back.

        Raises:
            OSError: if that fails; `begin` does it first of all then, and `open`.
        """
        if self._dirty:
            file = self._descriptor()
            os.ftruncate(file, self._durable_bytes)
            _write(file, bytes(max(SEGMENT_BYTES - self._durable_bytes, 0)), self._durable_bytes)
            os.fsync(file)
            self._dirty = False

    def close(self) -> None:
        """Close the segment."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _add_segment(self, first: int) -> None:
        path = self._folder / f"{first:020}.wal"
        self._make_spare()
        self._spare.rename(path)
        file = os.open(path, os.O_WRONLY)
        try:
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file = file
        self._durable_bytes = 0
        self._segments.append((first, path))

    def _make_spare(self) -> None:
        with self._making:
            if not self._spare.exists():
                _make(self._spare, b"", self._spare.with_suffix(".tmp"))

    def _descriptor(self) -> int:
        if self._file is None:
            message = "the write-ahead log is open"
            raise AssertionError(message)
        return self._file


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, and their names durable."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_index(segment: Path) -> int:
    try:
        return int(segment.stem)
    except ValueError as error:
        raise LogCorrupt(f"{segment} is not a segment of the write-ahead log") from error


def _framed(leaves: Sequence[bytes]) -> bytes:
    return b"".join(
        part for leaf in leaves for part in (_FRAME.pack(len(leaf), zlib.crc32(leaf)), leaf)
    )


def _make(path: Path, data: bytes, temporary: Path) -> None:
    """Put a segment with `data` and zeros behind it at `path`, whole or not at all."""
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(file, data + bytes(max(SEGMENT_BYTES - len(data), 0)), 0)
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(path)


def _write(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def _read_segment(path: Path) -> tuple[list[bytes], int, bool]:
    """Return a segment's leaves, where they end, and whether only zeros follow."""
    data = path.read_bytes()
    leaves: list[bytes] = []
    offset = 0
    while offset + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, offset)
        leaf = data[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(leaf) != length or not length or zlib.crc32(leaf) != checksum:
            break
        leaves.append(leaf)
        offset += _FRAME.size + length
    return leaves, offset, not data[offset:].strip(b"\0")
