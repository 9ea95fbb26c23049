"""Reads a file again only when it was replaced or changed."""

import os
from pathlib import Path
from typing import Final

from policies.bundle import DOCUMENT_MAX_BYTES
from policies.errors import BundleUntrusted

_NEVER: Final = (0, 0, 0)


class WatchedFile:
    """The content of one file, empty while there is none; blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _NEVER
        self._content = b""

    def read(self) -> bytes:
        """Return what the file holds now; a look at a file that did not change costs one `stat`.

        Raises:
            BundleUntrusted: if it is larger than a bundle can be.
            OSError: if it is there and cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                seen = (found.st_ino, found.st_mtime_ns, found.st_size)
                if seen != self._seen:
                    if found.st_size > DOCUMENT_MAX_BYTES:
                        raise BundleUntrusted("the file is larger than a policy bundle can be")
                    self._content = file.read()
                    self._seen = seen
        except FileNotFoundError:
            self._content, self._seen = b"", _NEVER
        return self._content
