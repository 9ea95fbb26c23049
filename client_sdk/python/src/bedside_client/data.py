"""The data that a device holds, behind a small interface that an app can implement."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class DataProvider(Protocol):
    """Resolves an input's name for a subject, and gives all rows for federated work."""

    def row(self, subject: str, name: str) -> Array | None:
        """Return the input `name` of `subject` as float32 [1, n], or None if it is not held here."""

    def rows(self) -> Iterator[tuple[Array, int]]:
        """Yield each row, float32 [n], with its label."""


class SqliteData:
    """Rows in a local SQLite file: `rows(subject TEXT PRIMARY KEY, label INTEGER, features BLOB)`.

    `features` are little-endian float32; every input name resolves to them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, rows: Iterable[tuple[str, Array, int]]) -> None:
        """Add rows of subject, features float32 [n] and label."""
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS rows"
                " (subject TEXT PRIMARY KEY, label INTEGER NOT NULL, features BLOB NOT NULL)"
            )
            database.executemany(
                "INSERT INTO rows VALUES (?, ?, ?)",
                [(subject, label, x.astype("<f4").tobytes()) for subject, x, label in rows],
            )

    def row(self, subject: str, name: str) -> Array | None:  # noqa: ARG002 one input only
        """Return the features of `subject` as float32 [1, n], or None."""
        with closing(self._open()) as database:
            found = database.execute(
                "SELECT features FROM rows WHERE subject = ?", (subject,)
            ).fetchone()
        return None if found is None else np.frombuffer(found[0], dtype="<f4").reshape(1, -1)

    def rows(self) -> Iterator[tuple[Array, int]]:
        """Yield each row with its label."""
        with closing(self._open()) as database:
            for features, label in database.execute("SELECT features, label FROM rows"):
                yield np.frombuffer(features, dtype="<f4"), int(label)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)


class FunctionData:
    """Data that the app's own function resolves; it takes no part in federated work."""

    def __init__(self, resolve: Callable[[str, str], Array | None]) -> None:
        self._resolve = resolve

    def row(self, subject: str, name: str) -> Array | None:
        """Return what the app's function gives."""
        return self._resolve(subject, name)

    def rows(self) -> Iterator[tuple[Array, int]]:
        """Yield nothing."""
        return iter(())
