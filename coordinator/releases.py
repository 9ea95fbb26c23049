"""Releases: signed, versioned model packages, laid out on disk as Triton does.

`<root>/<model>/<version>/` holds `model.onnx` and `release.json`, a DSSE envelope with payload type
`application/vnd.bedside.release+json` that names the file's SHA-256 and says how it was checked.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from coordinator.errors import ReleaseError

PAYLOAD_TYPE: Final = "application/vnd.bedside.release+json"
DOCUMENT: Final = "release.json"
MODEL_FILE: Final = "model.onnx"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class ReleasedFile(Struct, frozen=True, kw_only=True):
    """One file of a release."""

    sha256: str
    size: int


class ReleasedTensor(Struct, frozen=True, kw_only=True):
    """One input or output; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ReleasedEquivalence(Struct, frozen=True, kw_only=True):
    """How the artifact was checked against its checkpoint."""

    rows: int
    max_abs_difference: float
    tolerance: float


class Release(Struct, frozen=True, kw_only=True):
    """What a release says of itself; `threshold` turns the second output column into a class."""

    model: str
    version: str
    created: datetime
    files: dict[str, ReleasedFile]
    inputs: tuple[ReleasedTensor, ...]
    outputs: tuple[ReleasedTensor, ...]
    equivalence: ReleasedEquivalence
    checkpoint_sha256: str
    threshold: float

    @property
    def digest(self) -> str:
        """SHA-256 of the model file, in hexadecimal."""
        return self.files[MODEL_FILE].sha256


def build_release(
    model_file: Path,
    *,
    model: str,
    version: int,
    inputs: Iterable[ReleasedTensor],
    outputs: Iterable[ReleasedTensor],
    equivalence: ReleasedEquivalence,
    checkpoint_sha256: str,
    threshold: float,
) -> Release:
    """Return the release of `model_file`.

    Raises:
        ReleaseError: if the name or version is not valid, or the check exceeded its tolerance.
    """
    if not _NAME.fullmatch(model):
        raise ReleaseError("a model's name is 1 to 63 lower-case letters, digits or '-'")
    if not _VERSION.fullmatch(str(version)):
        raise ReleaseError("a release's version is a positive whole number")
    _check_equivalence(equivalence)
    data = model_file.read_bytes()
    file = ReleasedFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    return Release(
        model=model,
        version=str(version),
        created=datetime.now(UTC),
        files={MODEL_FILE: file},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        equivalence=equivalence,
        checkpoint_sha256=checkpoint_sha256,
        threshold=threshold,
    )


def _check_equivalence(equivalence: ReleasedEquivalence) -> None:
    # Written so that a difference that is not a number refuses, too.
    if equivalence.rows < 1 or not 0 <= equivalence.max_abs_difference <= equivalence.tolerance:
        raise ReleaseError("the artifact was not shown to be equivalent to its checkpoint")


def sign_release(release: Release, key: Ed25519PrivateKey) -> bytes:
    """Return the release as a signed document."""
    payload = msgspec.json.encode(release, order="deterministic")
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict()).encode()


def verify_release(document: bytes, keys: Iterable[Ed25519PublicKey], model_file: Path) -> Release:
    """Return the release in `document`, once its signature and the model file are checked.

    Raises:
        ReleaseError: if either is not as it was released.
    """
    trusted: list[Key] = [SSlibKey.from_crypto(key) for key in keys]
    try:
        envelope = Envelope.from_dict(json.loads(document))
        envelope.verify(trusted, 1)
        release = msgspec.json.decode(envelope.payload, type=Release)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
        raise ReleaseError("the release is not signed by a release key of this site") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ReleaseError("the signed document is not a release")
    if not _NAME.fullmatch(release.model) or not _VERSION.fullmatch(release.version):
        raise ReleaseError("the release's name or version is not valid")
    file = release.files.get(MODEL_FILE)
    try:
        data = model_file.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{MODEL_FILE} cannot be read: {error.strerror}") from error
    if file is None or file.size != len(data) or file.sha256 != hashlib.sha256(data).hexdigest():
        raise ReleaseError("model.onnx is not the file that the release names")
    return release


class ReleaseFolder:
    """The releases published under one root."""

    def __init__(self, root: Path, keys: Iterable[Ed25519PublicKey]) -> None:
        self.root = root
        self._keys = tuple(keys)

    def publish(self, document: bytes, model_file: Path) -> tuple[Release, bool]:
        """Put a verified release in place, whole or not at all; return it and whether it is new.

        Raises:
            ReleaseError: if it does not verify, was not shown to be equivalent to its checkpoint,
                is older than a published one, or its version is taken by another file.
        """
        release = verify_release(document, self._keys, model_file)
        _check_equivalence(release.equivalence)
        target = self.path(release.model, release.version)
        if target.exists():
            published = self._verified(target)
            if published.digest != release.digest:
                raise ReleaseError(
                    f"{release.model} version {release.version} is published already with another "
                    "file; releases are never replaced, publish a higher version"
                )
            return published, False
        newest = max(self._versions(release.model), default=0)
        if int(release.version) < newest:
            raise ReleaseError(
                f"{release.model} version {newest} is published already; publish a higher version"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publishing-") as folder:
            staged = Path(folder) / release.version
            staged.mkdir()
            shutil.copyfile(model_file, staged / MODEL_FILE)
            (staged / DOCUMENT).write_bytes(document)
            # Verified again: the file that was copied need not be the one that was read above.
            self._verified(staged)
            staged.rename(target)
        return release, True

    def list(self) -> list[Release]:
        """Return every release, by model and version.

        Raises:
            ReleaseError: naming the first that does not verify.
        """
        return [
            self.find(model.name, str(version))[0]
            for model in sorted(self.root.glob("*"))
            for version in sorted(self._versions(model.name))
        ]

    def find(self, model: str, version: str | None) -> tuple[Release, Path]:
        """Return a release, the newest if no version is named, and its folder; verified anew.

        Raises:
            ReleaseError: if there is none, or it is not what was released.
        """
        if version is not None and not _VERSION.fullmatch(version):
            raise ReleaseError("no such release")
        found = [number for number in self._versions(model) if version in (None, str(number))]
        if not found:
            raise ReleaseError("no such release")
        folder = self.path(model, str(max(found)))
        try:
            release = self._verified(folder)
        except ReleaseError as error:
            raise ReleaseError(f"{model} version {folder.name} cannot be served: {error}") from error
        if (release.model, release.version) != (model, folder.name):
            raise ReleaseError(f"{model} version {folder.name} is another model or version")
        return release, folder

    def _verified(self, folder: Path) -> Release:
        try:
            document = (folder / DOCUMENT).read_bytes()
        except OSError as error:
            raise ReleaseError(f"{DOCUMENT} cannot be read: {error.strerror}") from error
        return verify_release(document, self._keys, folder / MODEL_FILE)

    def _versions(self, model: str) -> set[int]:
        folder = self.root / model
        if not _NAME.fullmatch(model) or not folder.is_dir():
            return set()
        return {
            int(version.name)
            for version in folder.iterdir()
            if _VERSION.fullmatch(version.name) and (version / DOCUMENT).is_file()
        }

    def path(self, model: str, version: str) -> Path:
        """Return the folder of a release whose name and version are valid."""
        return self.root / model / version


def release_fields(release: Release) -> dict[str, Any]:
    """Return a release as JSON-ready fields."""
    fields: dict[str, Any] = msgspec.to_builtins(release)
    return fields
