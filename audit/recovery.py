"""Takes a log up where it was left: its tree from what is durable, held against what it published."""

from pathlib import Path

from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import LogCorrupt, VerificationError
from audit.minimum import MinimumIndex, read_minimum, remove_bundles
from audit.note import NoteVerifier
from audit.tiles import WIDTH
from audit.tree import TileTree
from audit.wal import WriteAheadLog


def recover(folder: Path, verifier: NoteVerifier, wal: WriteAheadLog, tree: TileTree) -> MinimumIndex:
    """Open `wal`, put all durable records into `tree`, and return the log's minimum index.

    A pruning that was stopped on its way is finished.

    Raises:
        LogCorrupt: if the files contradict each other, or hold what this log did not sign.
        OSError: if a file cannot be read or removed.
    """
    try:
        minimum = read_minimum(folder, verifier)
    except VerificationError as error:
        raise LogCorrupt(f"the minimum index is not this log's: {error}") from error
    tree.minimum = minimum.index
    first, leaves = wal.open(minimum.index)
    remove_bundles(folder, minimum.index)
    base = first // WIDTH * WIDTH
    tree.restore(base)
    if first > base:
        # The bundle that the segment begins in is complete: that is why earlier ones are gone.
        for leaf in tree.stored_bundle(base // WIDTH)[: first - base]:
            tree.append(leaf)
    tree.extend(leaves)
    return minimum


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
