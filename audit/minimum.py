"""The minimum index of a log (C2SP tlog-tiles, Pruning): the records below it are gone for good.

The specification leaves open how a log says it. Here it is a note that the log signs, beside its
checkpoint, so that a verifier can tell a bundle that was pruned from one that somebody removed:

    bedside minimum index 1
    clinic/gateway-1
    512
    2020-11-23T08:30:00Z     (the newest time of what was pruned)
    clinic/retention#3       (the record of the decision)

Its first line is no log's origin, so that it can never be taken for a checkpoint. All hash tiles stay:
every inclusion and consistency proof, also of earlier trees, can be made as before.
"""

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from audit.errors import VerificationError
from audit.note import NoteSigner, NoteVerifier, open_note
from audit.tiles import WIDTH, tile_path
from audit.wal import sync_folder

FILE: Final = "minimum-index"

_TITLE: Final = "bedside minimum index 1"
_INDEX: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_ENTRIES: Final = Path("tile/entries")


class MinimumIndex(Struct, frozen=True, kw_only=True):
    """From which record on a log is there, and which record of the site's decided that.

    `newest` is the newest time of the records below. `note` holds what the log signed.
    """

    index: int = 0
    newest: datetime | None = None
    decision: str = ""
    note: bytes = b""


UNPRUNED: Final = MinimumIndex()


def sign_minimum(signer: NoteSigner, index: int, newest: datetime, decision: str) -> MinimumIndex:
    """Return the minimum index `index`, a multiple of 256, as the log signs it."""
    if index % WIDTH or index <= 0:
        raise ValueError(f"a log is pruned by whole bundles of {WIDTH} records")
    time = newest.astimezone(UTC).isoformat()
    text = "\n".join((_TITLE, signer.verifier.name, str(index), time, decision, ""))
    return MinimumIndex(index=index, newest=newest, decision=decision, note=signer.sign(text))


def open_minimum(note: bytes, verifier: NoteVerifier) -> MinimumIndex:
    """Return the minimum index that the log signed in `note`.

    Raises:
        VerificationError: if the signature or the text is not valid.
    """
    text, _ = open_note(note, [verifier])
    lines = text.removesuffix("\n").split("\n")
    try:
        title, origin, number, time, decision = lines
        newest = datetime.fromisoformat(time)
    except ValueError as error:
        raise VerificationError("the minimum index is not five lines with a time") from error
    if title != _TITLE or origin != verifier.name:
        raise VerificationError(f"the minimum index is not that of {verifier.name}")
    if _INDEX.fullmatch(number) is None or int(number) % WIDTH or newest.tzinfo is None:
        raise VerificationError(f"the minimum index is not a number of whole bundles of {WIDTH}")
    return MinimumIndex(index=int(number), newest=newest, decision=decision, note=note)


def read_minimum(folder: Path, verifier: NoteVerifier) -> MinimumIndex:
    """Return the minimum index of the log in `folder`; one that was never pruned has none, which is 0.

    Raises:
        VerificationError: if it does not verify.
    """
    try:
        note = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return UNPRUNED
    except OSError as error:
        raise VerificationError(f"{folder / FILE} cannot be read") from error
    return open_minimum(note, verifier)


def write_minimum(folder: Path, minimum: MinimumIndex) -> None:
    """Make `minimum` durable: from here on the records below it are to go, whatever happens.

    Raises:
        OSError: if it cannot be written; the one before stays.
    """
    temporary = folder / f"{FILE}.tmp"
    with temporary.open("wb") as file:
        file.write(minimum.note)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE)
    sync_folder(folder)


def remove_bundles(folder: Path, index: int) -> None:
    """Remove the entry bundles below `index`; what a kill left of an earlier removal goes as well.

    The last of them goes when the others are gone durably, so that it shows whether that is so.

    Raises:
        OSError: if one cannot be removed; called again, it goes on.
    """
    last = index // WIDTH - 1
    if not bundles_remain(folder, index):
        return
    parents = set()
    for bundle in range(last):
        parents.add(_remove(folder / tile_path(None, bundle)))
    for parent in parents:
        if parent.is_dir():
            sync_folder(parent)
    parents.add(_remove(folder / tile_path(None, last)))
    root = folder / _ENTRIES
    for parent in sorted(parents, reverse=True):
        if parent.is_dir():
            sync_folder(parent)
            if parent != root and not any(parent.iterdir()):
                parent.rmdir()
                sync_folder(parent.parent)


def bundles_remain(folder: Path, index: int) -> bool:
    """Say whether some of the bundles below `index` may still be there."""
    return bool(index) and (folder / tile_path(None, index // WIDTH - 1)).exists()


def _remove(bundle: Path) -> Path:
    bundle.unlink(missing_ok=True)
    bundle.with_name(f"{bundle.name}.tmp").unlink(missing_ok=True)
    parts = bundle.with_name(f"{bundle.name}.p")
    if parts.is_dir():
        shutil.rmtree(parts)
    return bundle.parent
