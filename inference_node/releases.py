"""Checks that a model file is the one a trusted release names."""

import json
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey

from inference_node.errors import ModelNotReady

PAYLOAD_TYPE: Final = "application/vnd.bedside.release+json"
DOCUMENT: Final = "release.json"
MODEL_FILE: Final = "model.onnx"


class _File(Struct, frozen=True):
    sha256: str
    size: int


class _Release(Struct, frozen=True):
    model: str
    version: str
    files: dict[str, _File]


def verify_release(
    folder: Path,
    model: str,
    version: str,
    digest: str,
    keys: tuple[str, ...],
    file_name: str = MODEL_FILE,
) -> None:
    """Check that the release document in `folder` is signed and names this model file.

    Raises:
        ModelNotReady: with the reason, if it is not.
    """
    document = folder / DOCUMENT
    if not document.is_file():
        raise ModelNotReady("unsigned: the version has no release.json")
    trusted: list[Key] = [
        SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))) for key in keys
    ]
    try:
        envelope = Envelope.from_dict(json.loads(document.read_bytes()))
        envelope.verify(trusted, 1)
        release = msgspec.json.decode(envelope.payload, type=_Release)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
        raise ModelNotReady("untrusted: release.json is not signed by a release key") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ModelNotReady("untrusted: release.json is another kind of document")
    if (release.model, release.version) != (model, version):
        raise ModelNotReady("untrusted: release.json is of another model or version")
    file = release.files.get(file_name)
    if file is None or file.sha256 != digest:
        raise ModelNotReady("altered: the model file is not the file that was released")
