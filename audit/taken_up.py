"""Holds what a log published before against the tree that it finds when it is opened."""

from pathlib import Path

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import LogCorrupt, VerificationError
from audit.note import NoteVerifier
from audit.tree import TileTree


def take_up(path: Path, verifier: NoteVerifier, tree: TileTree) -> Checkpoint | None:
    """Return the checkpoint in the file `path`, if there is one, once the tree is found to extend it.

    Raises:
        LogCorrupt: if it is not this log's, or the tree contradicts it.
    """
    # Replaced without a sync, as the records it signs are durable elsewhere: after a power cut a
    # file system may hold an empty file in its place.
    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        published = open_checkpoint(path.read_bytes(), [verifier])
    except VerificationError as error:
        raise LogCorrupt(f"the published checkpoint is not this log's: {error}") from error
    if published.size > tree.size:
        raise LogCorrupt(f"records {tree.size} to {published.size - 1} were signed for and are missing")
    if tree.root_at(published.size) != published.root:
        raise LogCorrupt(f"the first {published.size} records are not those that were signed")
    return published
