"""The write-ahead log: where records become durable, before anything else is done with them.

Segments `<first index>.wal` hold frames. Only the last frames of the last segment can be torn by a
crash; they were never answered.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.errors import LogCorrupt
from audit.segment import Blocks, Segment, framed, make_segment, read_segment

# By the time a segment is let go of, the system has long written the tiles that hold its records, and
# making them durable costs next to nothing; at once it would stall every waiting writer.
SEGMENTS_KEPT: Final = 16

_COMPACTED: Final = "compacted.tmp"


class WriteAheadLog:
    """Appends leaves to the last segment; one thread appends, another may prepare and release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spare = folder / "spare"
        self._making = threading.Lock()
        self._last: Segment | None = None
        # Whether a power cut leaves the segments that there are under their names.
        self._named = False
        self._replaced: Path | None = None
        self._segments: list[tuple[int, Path]] = []

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
        valid_bytes = 0
        for position, (start, path) in enumerate(found):
            if start != first + len(leaves):
                raise LogCorrupt(f"the write-ahead log lacks record {first + len(leaves)}")
            read, valid_bytes, clean = read_segment(path)
            if not clean and position < len(found) - 1:
                raise LogCorrupt(f"record {start + len(read)} of the write-ahead log is damaged")
            leaves += read
        self._segments = found
        try:
            if found:
                self._last = Segment(found[-1][1], valid_bytes, dirty=True)
                self.compact(minimum)
            else:
                self._add_segment(0)
            # A process that was killed may have given one its name, and no more.
            self._name_it()
        except OSError:
            self.close()
            raise
        gone = max(minimum - first, 0)
        return first + gone, leaves[gone:]

    @property
    def full(self) -> bool:
        """Whether the next append begins a new segment, which takes longer than any other."""
        return self._open_segment().full

    def begin(self, leaves: Sequence[bytes], next_index: int) -> None:
        """Send `leaves` on their way to the disk; they are durable once `finish` has returned.

        The first of them has the index `next_index`.

        Raises:
            OSError: if that fails; nothing of them counts then.
        """
        self._for(next_index).begin(leaves)

    def finish(self) -> None:
        """Wait until what was begun is durable.

        Raises:
            OSError: if that fails; nothing of it counts then.
        """
        self._open_segment().finish()

    def blocks(self, leaves: Sequence[bytes], next_index: int) -> Blocks:
        """Return what makes `leaves` durable once the kernel has written it; then call `finished`.

        The first of them has the index `next_index`.

        Raises:
            OSError: if a segment cannot be begun, or what a failed append left cannot be removed.
        """
        return self._for(next_index).blocks(leaves)

    def finished(self) -> None:
        """Take note that what was begun is durable."""
        self._open_segment().finished()

    def cut(self) -> None:
        """Remove what a failed append may have left behind.

        Raises:
            OSError: if that fails; whatever is appended next does it first of all then.
        """
        self._open_segment().cut()

    def prepare(self) -> None:
        """Make the next segment ahead of time, if the current one is half full.

        May run beside `begin`, which waits for it where both need the same segment.

        Raises:
            OSError: if that fails; the segment is then made when it is needed.
        """
        if self._open_segment().half_full:
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
        self._remove_replaced()
        while len(self._segments) > 1 and self._segments[1][0] <= first:
            self.release()
        start, path = self._segments[0]
        if start >= first:
            return
        kept = framed(read_segment(path)[0][first - start :])
        target, temporary = self._folder / f"{first:020}.wal", self._folder / _COMPACTED
        make_segment(temporary, kept)
        if len(self._segments) == 1:
            self._go_on_in(Segment(temporary, len(kept)), temporary, target)
        else:
            temporary.rename(target)
        self._segments[0], self._named, self._replaced = (first, target), False, path
        self._remove_replaced()

    def close(self) -> None:
        """Close the segment."""
        if self._last is not None:
            self._last.close()
            self._last = None

    def _for(self, next_index: int) -> Segment:
        """Return the segment that the record `next_index` belongs to."""
        if self.full:
            # A failed append leaves nothing in a segment that another one follows.
            self.cut()
            self._add_segment(next_index)
        self._name_it()
        return self._open_segment()

    def _add_segment(self, first: int) -> None:
        path = self._folder / f"{first:020}.wal"
        self._make_spare()
        self._go_on_in(Segment(self._spare), self._spare, path)
        self._segments.append((first, path))

    def _go_on_in(self, segment: Segment, path: Path, named: Path) -> None:
        """Append to `segment` from here on, which is renamed from `path` to `named`."""
        try:
            path.rename(named)
        except OSError:
            segment.close()
            raise
        # Once it has its name, what is appended to the one before may be taken for replaced.
        before, self._last, self._named = self._last, segment, False
        if before is not None:
            before.close()

    def _name_it(self) -> None:
        """Make the segments' names durable, if they are not: a record without one would be lost."""
        if not self._named:
            sync_folder(self._folder)
            self._named = True

    def _remove_replaced(self) -> None:
        """Remove the segment that was written again without its first leaves, if it is still there."""
        if self._replaced is not None:
            self._name_it()
            self._replaced.unlink(missing_ok=True)
            sync_folder(self._folder)
            self._replaced = None

    def _make_spare(self) -> None:
        with self._making:
            if not self._spare.exists():
                temporary = self._spare.with_suffix(".tmp")
                make_segment(temporary, b"")
                temporary.rename(self._spare)

    def _open_segment(self) -> Segment:
        if self._last is None:
            message = "the write-ahead log is open"
            raise AssertionError(message)
        return self._last


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
