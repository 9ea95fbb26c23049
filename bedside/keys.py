"""Key files of an embedded site: Ed25519 keys and shared secrets, readable by their owner only."""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from audit.wal import sync_folder
from bedside.errors import BedsideError

SECRET_BYTES: Final = 32
PSEUDONYMS: Final = "pseudonym.key"
_OTHERS: Final = 0o077


class KeyFolder:
    """Reads the keys of one folder, making each on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, name: str) -> bool:
        """Whether the signing key `<name>.pem` was made."""
        return (self._folder / f"{name}.pem").exists()

    def signing_key(self, name: str) -> Ed25519PrivateKey:
        """Return the Ed25519 key `<name>.pem` (PKCS #8).

        Raises:
            BedsideError: if the file is not such a key, or others may read it.
        """
        path = self._folder / f"{name}.pem"
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self._write(path, pem)
        try:
            loaded = load_pem_private_key(self._read(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BedsideError(f"{path} is not an unencrypted PEM private key") from error
        if not isinstance(loaded, Ed25519PrivateKey):
            raise BedsideError(f"{path} is not an Ed25519 key")
        return loaded

    def secret(self, name: str) -> bytes:
        """Return the 32 random bytes in `<name>.key`.

        Raises:
            BedsideError: if the file has another size, or others may read it.
        """
        path = self._folder / f"{name}.key"
        if not path.exists():
            self._write(path, secrets.token_bytes(SECRET_BYTES))
        value = self._read(path)
        if len(value) != SECRET_BYTES:
            raise BedsideError(f"{path} must hold {SECRET_BYTES} bytes, not {len(value)}")
        return value

    def pseudonym_key(self) -> bytes:
        """Return the pseudonym key, of which some people's may be destroyed; made on first use.

        Raises:
            BedsideError: if it cannot be read, or others may read it.
        """
        path = self._folder / PSEUDONYMS
        if not path.exists():
            self._write(path, secrets.token_bytes(SECRET_BYTES))
        return self._read(path)

    def pseudonym_key_replaced(self) -> Callable[[], bytes | None]:
        """Return what tells, each time it is asked, the pseudonym key if it was replaced since."""
        path = self._folder / PSEUDONYMS
        known = _identity(path)

        def replaced() -> bytes | None:
            nonlocal known
            current = _identity(path)
            if current == known:
                return None
            known = current
            return self._read(path)

        return replaced

    def replace_pseudonym_key(self, change: Callable[[bytes], bytes]) -> None:
        """Put `change` of the pseudonym key in its place, and overwrite what was there.

        A file system that copies on write, a snapshot and a backup keep the old one: they are for
        whoever runs the machine to destroy.

        Raises:
            BedsideError: if it cannot be written; the key is the old one then.
        """
        self.pseudonym_key()
        path = self._folder / PSEUDONYMS
        lock = os.open(self._folder / "pseudonym.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Two destructions at once: the later one must start from what the earlier one left.
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = change(self._read(path))
            with path.open("r+b") as old:
                temporary = path.with_suffix(".tmp")
                file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(file, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(path)
                sync_folder(self._folder)
                old.write(bytes(os.fstat(old.fileno()).st_size))
                old.flush()
                os.fsync(old.fileno())
        except OSError as error:
            raise BedsideError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            os.close(lock)

    def _read(self, path: Path) -> bytes:
        try:
            if path.stat().st_mode & _OTHERS:
                raise BedsideError(f"{path} is readable by others; run: chmod 600 {path}")
            return path.read_bytes()
        except OSError as error:
            raise BedsideError(f"{path} cannot be read: {error.strerror}") from error

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # Two processes may both be first: whoever links first made the key.
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
            finally:
                temporary.unlink()
        except OSError as error:
            raise BedsideError(f"{path} cannot be written: {error.strerror}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what changes when the file at `path` is replaced."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
