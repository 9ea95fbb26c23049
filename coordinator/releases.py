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
    if not equivalence.max_abs_difference <= equivalence.tolerance:
        raise ReleaseError("the artifact was not shown to be equivalent to its checkpoint")
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
        raise ReleaseError(f"{model_file} cannot be read: {error.strerror}") from error
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
            ReleaseError: if it does not verify, or its version is taken by another file.
        """
        release = verify_release(document, self._keys, model_file)
        target = self.path(release.model, release.version)
        if target.exists():
            published = verify_release(
                (target / DOCUMENT).read_bytes(), self._keys, target / MODEL_FILE
            )
            if published.digest != release.digest:
                raise ReleaseError(
                    f"{release.model} version {release.version} is published already with another "
                    "file; releases are never replaced, publish a higher version"
                )
            return published, False
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publishing-") as folder:
            staged = Path(folder) / release.version
            staged.mkdir()
            shutil.copyfile(model_file, staged / MODEL_FILE)
            (staged / DOCUMENT).write_bytes(document)
            staged.rename(target)
        return release, True

    def list(self) -> list[Release]:
        """Return every release that verifies, by model and version."""
        found = [
            verify_release(document.read_bytes(), self._keys, document.with_name(MODEL_FILE))
            for document in self.root.glob(f"*/*/{DOCUMENT}")
        ]
        return sorted(found, key=lambda release: (release.model, int(release.version)))

    def find(self, model: str, version: str | None) -> tuple[Release, Path]:
        """Return a release, the newest if no version is named, and its folder.

        Raises:
            ReleaseError: if there is none.
        """
        if not _NAME.fullmatch(model) or (version is not None and not _VERSION.fullmatch(version)):
            raise ReleaseError("no such release")
        releases = [
            release
            for release in self.list()
            if release.model == model and version in (None, release.version)
        ]
        if not releases:
            raise ReleaseError("no such release")
        return releases[-1], self.path(model, releases[-1].version)

    def path(self, model: str, version: str) -> Path:
        """Return the folder of a release whose name and version are valid."""
        return self.root / model / version


def release_fields(release: Release) -> dict[str, Any]:
    """Return a release as JSON-ready fields."""
    fields: dict[str, Any] = msgspec.to_builtins(release)
    return fields
