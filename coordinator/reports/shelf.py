"""Keeps orders for reports, and the reports that were made, in a folder: both survive a restart.

<folder>/<id>.json  the order, and what came of it
<folder>/<id>.zip   the report, once it is made

A report names people by their pseudonyms only; its files are the owner's alone all the same.
"""

import io
import logging
import os
import re
import zipfile
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from audit.reports import Filters, WorkingHours

_ORDER: Final = re.compile(r"[0-9a-f]{32}\.json")

logger = logging.getLogger(__name__)


class State(StrEnum):
    """Where an order stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Failure(Struct, frozen=True):
    """Why an order came to nothing: a code, and a sentence of our own."""

    code: str
    detail: str


class Made(Struct, frozen=True, kw_only=True):
    """A report that is made: how many records it has, its own record, and the files in its zip."""

    records: int
    place: str
    digest: str
    size_bytes: int
    files: tuple[str, ...]


class KeptOrder(Struct, frozen=True, kw_only=True):
    """An order as it is kept; `touched` is when it last changed (seconds since 1970)."""

    id: str
    kind: str
    filters: Filters
    hours: WorkingHours
    principal: str | None
    asked: datetime
    state: State
    touched: float
    made: Made | None = None
    failure: Failure | None = None


class OrderShelf:
    """The folder; blocking."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> list[KeptOrder]:
        """Return the orders that are kept, in the order that they were given.

        One that cannot be read, a later version's say, is passed over and stays where it is.
        """
        found = []
        for path in self._folder.glob("*.json"):
            if not _ORDER.fullmatch(path.name):
                continue
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=KeptOrder))
            except (OSError, msgspec.MsgspecError) as error:
                logger.warning("an order for a report is not read: %s", type(error))
        return sorted(found, key=lambda one: one.asked)

    def keep(self, order: KeptOrder) -> None:
        """Keep an order as it stands now.

        Raises:
            OSError: if it cannot be written; what was kept of it before stays.
        """
        self._put(f"{order.id}.json", msgspec.json.encode(order))

    def keep_report(self, order_id: str, data: bytes) -> None:
        """Keep the report of an order; raises as `keep`."""
        self._put(f"{order_id}.zip", data)

    def report(self, order_id: str, member: str | None) -> bytes:
        """Return an order's report: the zip file, or one file out of it.

        Raises:
            OSError, zipfile.BadZipFile: if it is gone or damaged.
            KeyError: if it holds no such file.
        """
        data = (self._folder / f"{order_id}.zip").read_bytes()
        if member is None:
            return data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(member)

    def remove(self, order_id: str) -> None:
        """Let go of an order and its report."""
        for suffix in ("json", "zip"):
            (self._folder / f"{order_id}.{suffix}").unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._folder / f"{name}.tmp"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._folder / name)
