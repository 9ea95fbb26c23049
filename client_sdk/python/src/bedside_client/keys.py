"""The device's identity: an Ed25519 key made on the device, which never leaves it."""

import os
import time
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bedside_client.errors import StateError

ASSERTION_LIFETIME_S = 60


class DeviceIdentity:
    """Signs for one device."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> "DeviceIdentity":
        """Return the identity stored at `path`, making it on first use (mode 0600).

        Raises:
            StateError: if the file is not such a key.
        """
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(pem)
            return cls(key)
        try:
            loaded = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise StateError("the device's key file is damaged; enrol the device again") from error
        if not isinstance(loaded, Ed25519PrivateKey):
            raise StateError("the device's key is not an Ed25519 key; enrol the device again")
        return cls(loaded)

    @property
    def public_key(self) -> str:
        """The raw public key, in hexadecimal."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> str:
        """Return the signature of `message`, in hexadecimal."""
        return self._key.sign(message).hex()

    def assertion(self, device: str, site: str) -> str:
        """Return a fresh assertion of this device for `site`: good once, for at most a minute."""
        now = int(time.time())
        name = f"device:{device}"
        claims = {
            "iss": name,
            "sub": name,
            "aud": f"bedside:{site}",
            "iat": now,
            "exp": now + ASSERTION_LIFETIME_S,
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": name})
