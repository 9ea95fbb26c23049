"""Keyed pseudonyms: the only form in which a subject is ever stored."""

import hashlib
import hmac

from audit.errors import PseudonymKeyError

KEY_BYTES = 32


class Pseudonymizer:
    """Turns a subject's identifier into HMAC-SHA-256 under a key of the organisation (RFC 2104).

    Without the key a pseudonym links to nobody; destroying the key is crypto-erasure.
    """

    def __init__(self, key: bytes) -> None:
        """Hold `key`.

        Raises:
            PseudonymKeyError: if the key is not 32 bytes long.
        """
        if len(key) != KEY_BYTES:
            raise PseudonymKeyError(f"the pseudonym key must be {KEY_BYTES} bytes, not {len(key)}")
        self._inner = hmac.new(key, digestmod=hashlib.sha256)

    def pseudonym(self, subject: str) -> str:
        """Return the pseudonym of `subject`: 64 hexadecimal digits."""
        mac = self._inner.copy()
        mac.update(subject.encode())
        return mac.hexdigest()
