"""Checkpoints (C2SP tlog-checkpoint): a log's origin, size and root hash, in a signed note."""

import base64
import binascii
from collections.abc import Iterable

from msgspec import Struct

from audit.errors import VerificationError
from audit.merkle import HASH_BYTES
from audit.note import NoteSigner, NoteVerifier, open_note


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
    lines = text.split("\n")
    try:
        origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
    except (IndexError, binascii.Error) as error:
        raise VerificationError("the checkpoint is malformed") from error
    if not size.isascii() or not size.isdigit() or (size != "0" and size.startswith("0")):
        raise VerificationError("the checkpoint's size is not a number")
    if len(root) != HASH_BYTES:
        raise VerificationError("the checkpoint's root is not a SHA-256 hash")
    if origin not in {verifier.name for verifier in signed}:
        raise VerificationError("the checkpoint is not signed by its own log")
    return Checkpoint(origin, int(size), root, note)
