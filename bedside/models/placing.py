"""Gives a finished file its name, if nothing has that name: nothing is ever replaced."""

import errno
import os
from pathlib import Path
from typing import Final

from bedside.errors import BedsideError

# What file systems without hard links say to one: FAT, exFAT, many shares over SMB.
_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL}
)


class TargetTaken(BedsideError):
    """Raised when a file is to get a name that something has; what is there stays."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists; it is not replaced, choose another name")


def place(source: Path, target: Path) -> None:
    """Give `source`, a file in the same file system, the name `target`; its old name goes, or may stay.

    Raises:
        TargetTaken: if anything has that name, whenever it came.
    """
    try:
        # A renaming would replace a file, an empty folder or a link that appeared meanwhile.
        os.link(source, target)
    except FileExistsError as error:
        raise TargetTaken(target) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_without_link(source, target)


def _place_without_link(source: Path, target: Path) -> None:
    """Take the name with an empty file, which fails if it is taken, and put `source` over that one."""
    try:
        target.open("xb").close()
    except FileExistsError as error:
        raise TargetTaken(target) from error
    try:
        source.replace(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
