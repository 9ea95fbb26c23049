"""Model packages: fetched, verified before they are put in place, and verified before each load."""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey

from bedside_client.errors import PackageRejected, Unavailable
from bedside_client.http import read
from bedside_client.state import DeviceState

PAYLOAD_TYPE: Final = "application/vnd.bedside.release+json"
DOCUMENT: Final = "release.json"
MODEL_FILE: Final = "model.onnx"
DOCUMENT_LIMIT_BYTES: Final = 1024 * 1024
MODEL_LIMIT_BYTES: Final = 512 * 1024 * 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class PackageFile(Struct, frozen=True):
    """One file that a package names."""

    sha256: str
    size: int


class Package(Struct, frozen=True, kw_only=True):
    """A verified release: what it is, and how its output becomes a class."""

    model: str
    version: str
    files: dict[str, PackageFile]
    threshold: float

    @property
    def digest(self) -> str:
        """SHA-256 of the model file, in hexadecimal."""
        return self.files[MODEL_FILE].sha256


class PackageStore:
    """The packages of one device."""

    def __init__(self, folder: Path, release_keys: tuple[str, ...]) -> None:
        self._folder = folder
        self._keys: list[Key] = [
            SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)))
            for key in release_keys
        ]

    @classmethod
    def of(cls, state: DeviceState) -> "PackageStore":
        """Return the store of an enrolled device."""
        return cls(state.models, state.enrolment.trust.release_keys)

    def load(self, model: str, version: str | None = None) -> tuple[Package, bytes]:
        """Return a package, the newest if no version is named, and its model file; verified anew.

        Raises:
            PackageRejected: if there is none, or it is not what was released.
        """
        chosen = version or max(self._versions(model), key=int, default=None)
        if chosen is None or not _NAME.fullmatch(model) or not _VERSION.fullmatch(chosen):
            raise PackageRejected("this device holds no such model")
        folder = self._folder / model / chosen
        try:
            document = (folder / DOCUMENT).read_bytes()
            data = (folder / MODEL_FILE).read_bytes()
        except OSError as error:
            raise PackageRejected("this device holds no such model") from error
        return self._verified(document, data, model, chosen), data

    def packages(self) -> list[Package]:
        """Return what this device holds and verifies."""
        if not self._folder.is_dir():
            return []
        return [
            self.load(model.name, version)[0]
            for model in sorted(self._folder.iterdir())
            for version in sorted(self._versions(model.name), key=int)
        ]

    def install(self, document: bytes, data: bytes, model: str) -> Package:
        """Verify a package and put it in place, whole or not at all.

        Raises:
            PackageRejected: if it is not a release of `model` by a trusted key, or is older than
                one already here (a rollback).
        """
        package = self._verified(document, data, model, None)
        newest = max(map(int, self._versions(model)), default=0)
        if int(package.version) < newest:
            raise PackageRejected("the package is older than the one this device holds")
        target = self._folder / model / package.version
        if target.exists():
            return self.load(model, package.version)[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".package-") as folder:
            staged = Path(folder) / "package"
            staged.mkdir()
            (staged / MODEL_FILE).write_bytes(data)
            (staged / DOCUMENT).write_bytes(document)
            staged.rename(target)
        return package

    def _versions(self, model: str) -> list[str]:
        folder = self._folder / model
        if not _NAME.fullmatch(model) or not folder.is_dir():
            return []
        return [path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)]

    def _verified(self, document: bytes, data: bytes, model: str, version: str | None) -> Package:
        try:
            envelope = Envelope.from_dict(json.loads(document))
            envelope.verify(self._keys, 1)
            package = msgspec.json.decode(envelope.payload, type=Package)
        except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
            raise PackageRejected("the package is not signed by a trusted release key") from error
        if envelope.payload_type != PAYLOAD_TYPE:
            raise PackageRejected("the signed document is not a release")
        if package.model != model or version not in (None, package.version):
            raise PackageRejected("the package is of another model or version")
        if not _VERSION.fullmatch(package.version):
            raise PackageRejected("the package's version is not a number")
        file = package.files.get(MODEL_FILE)
        if file is None or file.size != len(data) or file.sha256 != hashlib.sha256(data).hexdigest():
            raise PackageRejected("the model file is not the one that was released")
        return package


async def fetch(state: DeviceState, model: str, version: str | None = None) -> Package:
    """Fetch a release from the coordinator, verify it and put it in place.

    Raises:
        PackageRejected: if it does not verify.
        Unavailable: if the coordinator does not answer.
    """
    if not _NAME.fullmatch(model):
        raise PackageRejected("no such model")
    base = f"{state.enrolment.coordinator_url.rstrip('/')}/v1/releases/{model}/{version or 'latest'}"
    try:
        async with aiohttp.ClientSession() as session:
            document = await _get(session, state, base, DOCUMENT_LIMIT_BYTES)
            data = await _get(session, state, f"{base}/{MODEL_FILE}", MODEL_LIMIT_BYTES)
    except aiohttp.ClientError as error:
        raise Unavailable("the coordinator does not answer") from error
    return PackageStore.of(state).install(document, data, model)


async def _get(session: aiohttp.ClientSession, state: DeviceState, url: str, limit_bytes: int) -> bytes:
    headers = {"Authorization": f"Bearer {state.assertion()}"}
    async with session.get(url, headers=headers) as response:
        return await read(response, limit_bytes)
