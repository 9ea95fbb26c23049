"""Segments of the write-ahead log: files of frames, of which the last is appended to.

A frame is the length and the CRC-32 of a leaf (big-endian uint32 each), then the leaf. A segment is
filled with zeros when it is made, because overwriting costs half of what appending does (measured,
ext4: fdatasync of 8 KB takes 148 us instead of 304 us). A length of zero ends it.
"""

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from audit.writeback import start_writing

SEGMENT_BYTES: Final = 4 * 1024 * 1024

# What a write past the system's cache begins and ends at; no disk has larger blocks.
BLOCK_BYTES: Final = 4096

_FRAME: Final = struct.Struct(">II")


class Blocks(NamedTuple):
    """Whole blocks, to be written at `offset` to a file.

    `direct` is open for writes past the system's cache, None where the file system has none.
    """

    file: int
    direct: int | None
    data: bytes
    offset: int


class Segment:
    """The segment that is appended to, one append at a time."""

    def __init__(self, path: Path, durable_bytes: int = 0, *, dirty: bool = False) -> None:
        """Open the file; `dirty` says that more than zeros may stand behind what is durable.

        Raises:
            OSError: if that fails.
        """
        self.durable_bytes = durable_bytes
        self._dirty = dirty
        self._begun = b""
        self._file = os.open(path, os.O_RDWR)
        try:
            # What is durable of the block that is written next: it is written again with it.
            in_block = durable_bytes % BLOCK_BYTES
            self._tail = os.pread(self._file, in_block, durable_bytes - in_block)
            self._direct = _open_direct(path)
        except OSError:
            os.close(self._file)
            raise

    @property
    def full(self) -> bool:
        """Whether the next append belongs to another segment."""
        return self.durable_bytes >= SEGMENT_BYTES

    @property
    def half_full(self) -> bool:
        """Whether it is time to think of the next segment."""
        return self.durable_bytes >= SEGMENT_BYTES // 2

    def begin(self, leaves: Sequence[bytes]) -> None:
        """Send `leaves` on their way to the disk; they are durable once `finish` has returned.

        Raises:
            OSError: if that fails; nothing of them counts then.
        """
        write_through(self.blocks(leaves))

    def finish(self) -> None:
        """Wait until what was begun is durable.

        Raises:
            OSError: if that fails; nothing of it counts then.
        """
        os.fdatasync(self._file)
        self.finished()

    def blocks(self, leaves: Sequence[bytes]) -> Blocks:
        """Return what makes `leaves` durable once it is written durably; then call `finished`.

        Raises:
            OSError: if what a failed append left behind cannot be removed.
        """
        self.cut()
        self._dirty = True
        self._begun = framed(leaves)
        data = self._tail + self._begun
        return Blocks(
            self._file,
            self._direct,
            data + bytes(-len(data) % BLOCK_BYTES),
            self.durable_bytes - len(self._tail),
        )

    def finished(self) -> None:
        """Take note that what was begun is durable."""
        self.durable_bytes += len(self._begun)
        self._tail = _last_block(self._tail + self._begun)
        self._begun = b""
        self._dirty = False

    def cut(self) -> None:
        """Remove what a failed append may have left behind: a frame in it must never come back.

        Raises:
            OSError: if that fails; whatever is appended next does it first of all then.
        """
        if self._dirty:
            os.ftruncate(self._file, self.durable_bytes)
            rest = max(SEGMENT_BYTES - self.durable_bytes, 0)
            _write(self._file, bytes(rest), self.durable_bytes)
            os.fsync(self._file)
            self._dirty = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        if self._direct is not None:
            os.close(self._direct)


def write_through(blocks: Blocks) -> None:
    """Write `blocks` through the system's cache, and have them sent on their way to the disk.

    Raises:
        OSError: if that fails.
    """
    _write(blocks.file, blocks.data, blocks.offset)
    start_writing(blocks.file, blocks.offset, len(blocks.data))


def framed(leaves: Sequence[bytes]) -> bytes:
    """Return the frames that hold `leaves`."""
    return b"".join(
        part for leaf in leaves for part in (_FRAME.pack(len(leaf), zlib.crc32(leaf)), leaf)
    )


def read_segment(path: Path) -> tuple[list[bytes], int, bool]:
    """Return a segment's leaves, where they end, and whether only zeros follow.

    Raises:
        OSError: if it cannot be read.
    """
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


def make_segment(path: Path, data: bytes) -> None:
    """Write a segment with `data` and zeros behind it to `path`; its name is not durable yet.

    Raises:
        OSError: if that fails; a part of it may stand there then.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(file, data + bytes(max(SEGMENT_BYTES - len(data), 0)), 0)
        os.fsync(file)
    finally:
        os.close(file)


def _last_block(data: bytes) -> bytes:
    return data[len(data) - len(data) % BLOCK_BYTES :]


def _open_direct(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except AttributeError:
        # Other systems than Linux.
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return None
        raise


def _write(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)
