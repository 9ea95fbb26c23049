"""What a witness remembers: the largest checkpoint that it cosigned of each log. It never goes back.

It is one SQLite database, synced before a cosignature is given. A witness that lost it would believe
anything once more, so that it never makes another beside a key that was in use.
"""

import sqlite3
import threading
from pathlib import Path
from typing import Final

from msgspec import Struct

from audit.checkpoint import Checkpoint
from audit.errors import WitnessUnavailable
from audit.merkle import EMPTY_ROOT

CONTRADICTIONS_KEPT: Final = 100

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS logs (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, time INTEGER NOT NULL,
    note BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contradictions (
    origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, held BLOB NOT NULL,
    note BLOB NOT NULL, PRIMARY KEY (origin, size, root)
) WITHOUT ROWID;
"""


class Seen(Struct, frozen=True):
    """The last checkpoint that was cosigned of a log: its size, its root, and when (seconds, UTC)."""

    size: int
    root: bytes
    time: int


NOTHING: Final = Seen(0, EMPTY_ROOT, 0)


class Contradiction(Struct, frozen=True):
    """Two checkpoints that one log signed for one size: proof that it keeps two histories."""

    origin: str
    size: int
    held: bytes
    refused: bytes


class WitnessMemory:
    """The open database of one witness; threads may share it."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the memory at `path`; `create` allows that it is the first time.

        Raises:
            WitnessUnavailable: if it is not there though it should be, or cannot be used.
        """
        if not create and not path.is_file():
            raise WitnessUnavailable(
                f"the witness's memory {path} is gone: what it cosigned is not known any more. Restore "
                "it from a backup of the last moment, or retire the witness's key and begin as another"
            )
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._database.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise WitnessUnavailable(f"the witness's memory {path} cannot be opened") from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def seen(self, origin: str) -> Seen:
        """Return what was last cosigned of `origin`."""
        with self._lock:
            return self._seen(origin)

    def logs(self) -> list[tuple[str, Seen]]:
        """Return every log that was ever cosigned."""
        with self._lock:
            rows = self._database.execute("SELECT origin, size, root, time FROM logs ORDER BY origin")
            return [(origin, Seen(size, root, time)) for origin, size, root, time in rows]

    def advance(self, last: Seen, checkpoint: Checkpoint, time: int) -> bool:
        """Remember `checkpoint` durably, if `last` still is what was last cosigned of its log.

        Raises:
            WitnessUnavailable: if that cannot be made durable; nothing may be cosigned then.
        """
        origin, row = checkpoint.origin, (checkpoint.size, checkpoint.root, time, checkpoint.note)
        with self._lock:
            try:
                # Another process may hold the same memory: looking and writing are one step.
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    current = self._seen(origin)
                    if current == last:
                        self._database.execute(
                            "INSERT INTO logs (origin, size, root, time, note) VALUES (?, ?, ?, ?, ?)"
                            " ON CONFLICT (origin) DO UPDATE SET size = excluded.size,"
                            " root = excluded.root, time = excluded.time, note = excluded.note",
                            (origin, *row),
                        )
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise WitnessUnavailable("the witness's memory cannot be written") from error
        return current == last

    def keep_contradiction(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that says otherwise than the one of the same size that was cosigned."""
        with self._lock:
            try:
                self._database.execute(
                    "INSERT OR IGNORE INTO contradictions (origin, size, root, held, note)"
                    " SELECT origin, size, ?, note, ? FROM logs WHERE origin = ? AND size = ?"
                    " AND (SELECT count(*) FROM contradictions WHERE origin = ?) < ?",
                    (
                        checkpoint.root,
                        checkpoint.note,
                        checkpoint.origin,
                        checkpoint.size,
                        checkpoint.origin,
                        CONTRADICTIONS_KEPT,
                    ),
                )
            except sqlite3.Error as error:
                raise WitnessUnavailable("the witness's memory cannot be written") from error

    def contradictions(self) -> list[Contradiction]:
        """Return what was kept: of each log the first hundred."""
        with self._lock:
            rows = self._database.execute(
                "SELECT origin, size, held, note FROM contradictions ORDER BY origin, size, root"
            )
            return [Contradiction(*row) for row in rows]

    def _seen(self, origin: str) -> Seen:
        row = self._database.execute(
            "SELECT size, root, time FROM logs WHERE origin = ?", (origin,)
        ).fetchone()
        return NOTHING if row is None else Seen(*row)
