"""Cosignatures (C2SP tlog-cosignature, `cosignature/v1`): what a witness says of a checkpoint.

A cosignature states that, at a time, the checkpoint was the largest that its witness had seen of the
log, and consistent with all before. The time is part of what is signed.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from audit.errors import VerificationError
from audit.note import DASH, is_name, key_hash, read_key, split_note, write_key

# The signature type of an Ed25519 cosignature.
COSIGNATURE: Final = b"\x04"

_SIGNATURE: Final = struct.Struct(">Q64s")
_TIME_MAX: Final = 2**63 - 1


class WitnessKey(Struct, frozen=True):
    """A witness's name and the key that verifies its cosignatures."""

    name: str
    key: Ed25519PublicKey

    def __str__(self) -> str:
        """Return the published form: `name+hash+base64(0x04 || key)`."""
        return write_key(self.name, self.key, COSIGNATURE)

    @classmethod
    def parse(cls, text: str) -> "WitnessKey":
        """Return the witness key that `text` publishes.

        Raises:
            VerificationError: if it is not a well-formed key for Ed25519 cosignatures.
        """
        return cls(*read_key(text, COSIGNATURE))

    @property
    def id(self) -> bytes:
        """The key id that stands in this witness's signature lines."""
        return key_hash(self.name, self.key, COSIGNATURE)


class Cosignature(Struct, frozen=True):
    """A verified cosignature: who gave it, when (seconds since 1970, UTC), and its line."""

    witness: WitnessKey
    time: int
    line: str


class Cosigner:
    """Cosigns checkpoints under one name; the key must be used for nothing else."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if not is_name(name):
            raise ValueError("a witness's name is not empty and has neither spaces nor '+'")
        self.key = WitnessKey(name, key.public_key())
        self._private = key

    def cosign(self, text: str, time: int) -> str:
        """Return the signature line over a checkpoint's text, as of `time`."""
        signature = self._private.sign(_message(text, time))
        encoded = base64.b64encode(self.key.id + _SIGNATURE.pack(time, signature)).decode()
        return f"{DASH} {self.key.name} {encoded}\n"


def cosignatures_of(note: bytes, witnesses: Iterable[WitnessKey]) -> list[Cosignature]:
    """Return the cosignatures of `witnesses` on a checkpoint; one for each key, the latest.

    Whose key is not among them is passed over.

    Raises:
        VerificationError: if the note is malformed, or a cosignature by one of the keys does not
            verify.
    """
    known = {(witness.name, witness.id): witness for witness in witnesses}
    text, signatures = split_note(note)
    found: dict[bytes, Cosignature] = {}
    for name, id_, signature in signatures:
        witness = known.get((name, id_))
        if witness is None:
            continue
        raw = witness.key.public_bytes_raw()
        verified = _verify(witness, text, signature)
        if raw not in found or found[raw].time < verified.time:
            found[raw] = verified
    return list(found.values())


def require_quorum(note: bytes, witnesses: Sequence[WitnessKey], quorum: int) -> list[Cosignature]:
    """Return the cosignatures of `witnesses` on a checkpoint.

    Raises:
        VerificationError: if they are fewer than `quorum`, or one of them does not verify.
    """
    found = cosignatures_of(note, witnesses)
    if len(found) < quorum:
        origin = split_note(note)[0].partition("\n")[0]
        raise VerificationError(
            f"{len(found)} of the {len(witnesses)} witnesses cosigned the checkpoint of {origin}; "
            f"{quorum} are required"
        )
    return found


def _verify(witness: WitnessKey, text: str, signature: bytes) -> Cosignature:
    failed = VerificationError(f"the cosignature of {witness.name} does not verify")
    if len(signature) != _SIGNATURE.size:
        raise failed
    time, raw = _SIGNATURE.unpack(signature)
    # A time of zero means no statement that the tree was the largest seen.
    if not 0 < time <= _TIME_MAX:
        raise failed
    try:
        witness.key.verify(raw, _message(text, time))
    except InvalidSignature as error:
        raise failed from error
    encoded = base64.b64encode(witness.id + signature).decode()
    return Cosignature(witness, time, f"{DASH} {witness.name} {encoded}\n")


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
