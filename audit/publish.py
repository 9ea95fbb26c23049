"""Writes a log's public files: complete tiles, the partial tiles of its edge, the checkpoint."""

import os
import shutil
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from audit.tiles import WIDTH
from audit.wal import sync_folder

CHECKPOINT: Final = "checkpoint"
# The last checkpoint that the witnesses cosigned, of a log that does not wait for them.
COSIGNED: Final = "cosigned"


class Publisher:
    """Writes one log's files; used by one thread at a time.

    All of them can be made again from the write-ahead log, so they are only put in place whole. Before
    the write-ahead log lets go of records, `sync` makes the complete tiles that hold them durable.
    A partial tile stays until its complete one is in place (C2SP tlog-tiles, Partial Tiles), so that
    whoever holds an earlier checkpoint can still read the tree it signs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The size of the log when each complete tile was put in place, and the tile.
        self._unsynced: deque[tuple[int, Path]] = deque()
        self._unsynced_folders: set[Path] = set()
        # Guards the checkpoint's file, and how many records it covers.
        self._newest = threading.Lock()
        self._size = 0

    def publish(
        self,
        size: int,
        complete: Mapping[str, bytes],
        partial: Mapping[str, bytes],
        checkpoint: bytes | None,
    ) -> None:
        """Put the files of a log of `size` records in place, the checkpoint last.

        Without a `checkpoint` the one before stays: witnesses are asked first.

        Raises:
            OSError: if a file cannot be written; what was in place stays valid.
        """
        for path, data in complete.items():
            self._unsynced.append((size, self._put(path, data)))
        for path, data in partial.items():
            self._put(path, data)
        if checkpoint is not None:
            with self._newest:
                self._put(CHECKPOINT, checkpoint)
                self._size = size
        for path in complete:
            parts = self._folder / f"{path}.p"
            if parts.is_dir():
                shutil.rmtree(parts, ignore_errors=True)

    def publish_checkpoint(self, _: int, note: bytes) -> None:
        """Put a cosigned checkpoint in place, whose tiles are there; may run beside `publish`.

        Raises:
            OSError: if it cannot be written; the one before stays.
        """
        self._put(CHECKPOINT, note)

    def publish_beside(self, size: int, note: bytes) -> None:
        """Put a cosigned checkpoint beside the newest one, and in its place if it is the newest.

        Raises:
            OSError: if it cannot be written; the one before stays.
        """
        self._put(COSIGNED, note)
        with self._newest:
            if size == self._size:
                self._put(CHECKPOINT, note)

    def sync(self, size: int) -> None:
        """Make the complete tiles that hold the first `size` records durable.

        Raises:
            OSError: if that fails; those that are left are tried again.
        """
        synced = 0
        while self._unsynced and synced < size:
            published, path = self._unsynced[0]
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
            # New folders' names stand in their parents: up to the log's own.
            self._unsynced_folders |= {
                parent for parent in path.parents if parent.is_relative_to(self._folder)
            }
            self._unsynced.popleft()
            if not self._unsynced or self._unsynced[0][0] != published:
                # What is behind the last complete tile was in no complete tile then.
                synced = published // WIDTH * WIDTH
        for folder in sorted(self._unsynced_folders):
            sync_folder(folder)
        self._unsynced_folders.clear()

    def _put(self, path: str, data: bytes) -> Path:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.tmp")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
        finally:
            os.close(file)
        temporary.replace(target)
        return target
