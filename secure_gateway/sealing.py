"""Sealed bytes: what the gateway keeps of a request for later, unreadable without the site's key.

XAES-256-GCM (C2SP xaes-256-gcm), which is AES-256-GCM under a key that 96 of the nonce's 192 bits
derive. Random nonces of plain AES-256-GCM are safe for 2^32 values under one key (NIST SP 800-38D
section 8.3), which a busy cache reaches in weeks; 192 bits never run out.

    version (1 byte) | key id (8) | nonce (24) | ciphertext | tag (16)
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_gateway.errors import GatewayError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
KEY_ID_BYTES: Final = 8
VERSION: Final = b"\x01"

_HEAD_BYTES: Final = len(VERSION) + KEY_ID_BYTES
_BLOCK_BYTES: Final = 16
_DERIVING_BYTES: Final = 12
_TAG_BYTES: Final = 16

OVERHEAD_BYTES: Final = _HEAD_BYTES + NONCE_BYTES + _TAG_BYTES
"""By how many bytes a sealed value is longer than what it holds."""


class SealBroken(GatewayError):
    """Raised when sealed bytes do not open: changed, cut, moved elsewhere, or of another key."""


def derive_key(secret: bytes, purpose: str) -> bytes:
    """Return 32 bytes for one purpose, of the site's secret (HKDF-SHA-256, RFC 5869)."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"bedside {purpose}".encode()).derive(secret)


class Sealer:
    """Seals and opens bytes for one purpose; keys of different purposes do not open each other's."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        """Derive the keys of `purpose` from `secret`, the site's 32 random bytes."""
        self._key = ExtendedKey(derive_key(secret, f"sealing {purpose}"))
        self._head = VERSION + derive_key(secret, f"key id {purpose}")[:KEY_ID_BYTES]

    def seal(self, content: bytes, associated: bytes) -> bytes:
        """Return `content`, sealed; it opens only together with the same `associated` bytes."""
        nonce = os.urandom(NONCE_BYTES)
        return b"".join((self._head, nonce, self._key.encrypt(nonce, content, associated)))

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Return what `sealed` holds.

        Raises:
            SealBroken: if it is not what this key sealed, with the same `associated` bytes.
        """
        if len(sealed) < OVERHEAD_BYTES or sealed[:_HEAD_BYTES] != self._head:
            raise SealBroken("the sealed bytes are not of this key")
        nonce = sealed[_HEAD_BYTES : _HEAD_BYTES + NONCE_BYTES]
        try:
            return self._key.decrypt(nonce, sealed[_HEAD_BYTES + NONCE_BYTES :], associated)
        except InvalidTag:
            raise SealBroken("the sealed bytes were changed or belong elsewhere") from None


class ExtendedKey:
    """XAES-256-GCM: encryption with nonces of 192 bits that may be random."""

    def __init__(self, key: bytes) -> None:
        self._block = Cipher(AES256(key), ECB())  # noqa: S305 single blocks, as CMAC is made of
        doubled = int.from_bytes(self._encrypted(bytes(_BLOCK_BYTES))) << 1
        if doubled >> 128:
            doubled ^= (1 << 128) | 0x87
        self._subkey = doubled

    def encrypt(self, nonce: bytes, content: bytes, associated: bytes) -> bytes:
        """Return ciphertext and tag; `nonce` has 24 bytes."""
        return self._derived(nonce).encrypt(nonce[_DERIVING_BYTES:], content, associated)

    def decrypt(self, nonce: bytes, encrypted: bytes, associated: bytes) -> bytes:
        """Return the content.

        Raises:
            InvalidTag: if it is not authentic.
        """
        return self._derived(nonce).decrypt(nonce[_DERIVING_BYTES:], encrypted, associated)

    def _derived(self, nonce: bytes) -> AESGCM:
        half = nonce[:_DERIVING_BYTES]
        blocks = (b"\x00\x01X\x00" + half, b"\x00\x02X\x00" + half)
        return AESGCM(b"".join(self._encrypted(self._masked(block)) for block in blocks))

    def _masked(self, block: bytes) -> bytes:
        return (int.from_bytes(block) ^ self._subkey).to_bytes(_BLOCK_BYTES)

    def _encrypted(self, block: bytes) -> bytes:
        encryptor = self._block.encryptor()
        return encryptor.update(block) + encryptor.finalize()
