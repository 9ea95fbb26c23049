"""Signed notes (C2SP signed-note): text with Ed25519 signatures that name who signed."""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from audit.errors import VerificationError

# The signature type of an Ed25519 signature over the note's text; other types (cosignatures are 0x04)
# have key ids of their own, so that their lines are passed over here as a stranger's.
ED25519: Final = b"\x01"

# Room for far more than the 16 signatures that every verifier must accept, even of 5 kB each.
NOTE_MAX_BYTES: Final = 1_000_000
_ID_BYTES: Final = 4
DASH: Final = "\u2014"


def key_hash(name: str, key: Ed25519PublicKey, kind: bytes = ED25519) -> bytes:
    """Return the key id: SHA-256(name || 0x0A || kind || key)[:4]."""
    encoded = name.encode() + b"\n" + kind + key.public_bytes_raw()
    return hashlib.sha256(encoded).digest()[:_ID_BYTES]


def write_key(name: str, key: Ed25519PublicKey, kind: bytes) -> str:
    """Return a verifier key in its published form: `name+hash+base64(kind || key)`."""
    encoded = base64.b64encode(kind + key.public_bytes_raw()).decode()
    return f"{name}+{key_hash(name, key, kind).hex()}+{encoded}"


def read_key(text: str, kind: bytes) -> tuple[str, Ed25519PublicKey]:
    """Return the name and key of a verifier key of the signature type `kind`.

    Raises:
        VerificationError: if it is not a well-formed verifier key of that type.
    """
    try:
        name, stated, encoded = text.strip().split("+", 2)
        if not is_name(name):
            raise VerificationError("a verifier key's name is empty or has spaces")
        raw = base64.b64decode(encoded, validate=True)
        if raw[:1] != kind:
            wanted = "an Ed25519 key" if kind == ED25519 else f"a key of type {kind[0]:#04x}"
            raise VerificationError(f"the verifier key is not {wanted}")
        key = Ed25519PublicKey.from_public_bytes(raw[1:])
    except ValueError as error:
        raise VerificationError("a verifier key reads `name+hash+key`") from error
    if key_hash(name, key, kind).hex() != stated:
        raise VerificationError("the verifier key's hash does not match its key")
    return name, key


class NoteVerifier(Struct, frozen=True):
    """A name and the key that signs for it."""

    name: str
    key: Ed25519PublicKey

    def __str__(self) -> str:
        """Return the published form: `name+hash+base64(0x01 || key)`."""
        return write_key(self.name, self.key, ED25519)

    @classmethod
    def parse(cls, text: str) -> "NoteVerifier":
        """Return the verifier that `text` publishes.

        Raises:
            VerificationError: if it is not a well-formed Ed25519 verifier key.
        """
        name, key = read_key(text, ED25519)
        return cls(name, key)


class NoteSigner:
    """Signs notes under one name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if not is_name(name):
            raise ValueError("a signer's name is not empty and has neither spaces nor '+'")
        self.verifier = NoteVerifier(name, key.public_key())
        self._key = key
        self._prefix = f"{DASH} {name} "
        self._hash = key_hash(name, key.public_key())

    def sign(self, text: str) -> bytes:
        """Return `text` with this signer's signature line.

        Raises:
            ValueError: if the text does not end in a newline or has other control characters.
        """
        if not text.endswith("\n") or _has_control_characters(text):
            raise ValueError("a note's text ends in a newline and has no other control characters")
        signature = base64.b64encode(self._hash + self._key.sign(text.encode())).decode()
        return f"{text}\n{self._prefix}{signature}\n".encode()


def open_note(note: bytes, verifiers: Iterable[NoteVerifier]) -> tuple[str, list[NoteVerifier]]:
    """Return the note's text and which of `verifiers` signed it; unknown signatures are passed over.

    Raises:
        VerificationError: if the note is malformed, a known signature does not verify, or nobody
            known signed it.
    """
    text, signatures = split_note(note)
    known = {(verifier.name, key_hash(verifier.name, verifier.key)): verifier for verifier in verifiers}
    signed: list[NoteVerifier] = []
    for name, hash_, signature in signatures:
        verifier = known.get((name, hash_))
        if verifier is None:
            continue
        try:
            verifier.key.verify(signature, text.encode())
        except InvalidSignature as error:
            raise VerificationError(f"the signature of {name} does not verify") from error
        if verifier not in signed:
            signed.append(verifier)
    if not signed:
        raise VerificationError("no trusted key signed the note")
    return text, signed


def split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Return a note's text and its signatures (name, key id, signature), none of them verified.

    Raises:
        VerificationError: if the note is malformed.
    """
    if len(note) > NOTE_MAX_BYTES:
        raise VerificationError(f"the note is longer than {NOTE_MAX_BYTES} bytes")
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise VerificationError("the note is not UTF-8 text") from error
    if _has_control_characters(whole):
        raise VerificationError("the note has control characters other than newlines")
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise VerificationError("the note has no signature block")
    text += "\n"
    # Not splitlines(): it also ends a line at U+2028 and others, which are text to the specification.
    lines = signatures.removesuffix("\n").split("\n")
    return text, [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise VerificationError("a signature line is malformed") from error
    if dash != DASH or not is_name(name) or len(raw) <= _ID_BYTES:
        raise VerificationError("a signature line is malformed")
    return name, raw[:_ID_BYTES], raw[_ID_BYTES:]


def is_name(name: str) -> bool:
    """Say whether a signer may have this name."""
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _has_control_characters(text: str) -> bool:
    return any(character < " " and character != "\n" for character in text)
