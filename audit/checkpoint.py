"""Checkpoints (C2SP tlog-checkpoint): a log's origin, size and root hash, in a signed note."""

import base64
import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from audit.errors import VerificationError
from audit.merkle import HASH_BYTES
from audit.note import NoteSigner, NoteVerifier, open_note

# Below 10**18, so that sizes fit the 64 bits that other implementations give them.
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class Checkpoint(Struct, frozen=True):
    """A signed tree head: `note` holds the bytes that were signed and the signatures."""

    origin: str
    size: int
    root: bytes
    note: bytes


def sign_checkpoint(signer: NoteSigner, size: int, root: bytes) -> Checkpoint:
    """Return the checkpoint of a tree; the signer's name is the log's origin."""
    origin = signer.verifier.name
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return Checkpoint(origin, size, root, signer.sign(text))


def open_checkpoint(note: bytes, verifiers: Iterable[NoteVerifier]) -> Checkpoint:
    """Return the checkpoint in `note`, once a trusted key is found to have signed it.

    Raises:
        VerificationError: if the signature or the text is not valid.
    """
    text, signed = open_note(note, verifiers)
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise VerificationError("a checkpoint has an origin, a size, a root hash and no empty line")
    origin, size, encoded = lines[:3]
    if _SIZE.fullmatch(size) is None:
        raise VerificationError("the checkpoint's size is not a number of records")
    try:
        root = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise VerificationError("the checkpoint's root is not base64") from error
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != encoded:
        raise VerificationError("the checkpoint's root is not a SHA-256 hash in base64")
    if origin not in {verifier.name for verifier in signed}:
        raise VerificationError("the checkpoint is not signed by its own log")
    return Checkpoint(origin, int(size), root, note)
