import json
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from secure_gateway import DeviceDirectory, RegistryError

KEY = Ed25519PrivateKey.generate()
PHONE = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
SUBJECT = "ab" * 32


def registry(serial=1, *, key=KEY, revoked=False, **changes):
    device = {
        "id": "phone",
        "public_key": PHONE,
        "jurisdiction": "US-CA",
        "subjects": [SUBJECT],
        "revoked": revoked,
    }
    fields = {
        "site": "clinic",
        "serial": serial,
        "issued": datetime.now(UTC),
        "devices": [device],
        **changes,
    }
    envelope = Envelope(msgspec.json.encode(fields), "application/vnd.bedside.registry+json", {})
    envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict()).encode()


@pytest.fixture
def directory():
    return DeviceDirectory("clinic", (KEY.public_key(),))


def test_without_a_registry_no_device_is_trusted(directory):
    assert directory.key_of("device:phone") is None
    assert directory.holder_of(SUBJECT) is None


def test_a_signed_registry_says_who_holds_what(directory):
    assert directory.accept(registry())
    assert not directory.accept(registry())
    assert directory.holder_of(SUBJECT) == "device:phone"
    assert directory.jurisdiction_of("device:phone") == "US-CA"
    assert directory.key_of("device:phone").public_bytes_raw().hex() == PHONE


def test_a_revoked_device_is_gone_and_told(directory):
    gone = []
    directory.on_revocation(gone.append)
    directory.accept(registry(1))
    directory.accept(registry(2, revoked=True))
    assert gone == [frozenset(), frozenset({"device:phone"})]
    assert directory.key_of("device:phone") is None
    assert directory.holder_of(SUBJECT) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"payload": 1}',
        registry(key=Ed25519PrivateKey.generate()),
        registry(site="elsewhere"),
        registry(serial="one"),
        registry(devices=[{"id": "Jane Doe"}]),
    ],
)
def test_no_other_document_is_accepted(directory, document):
    with pytest.raises(RegistryError):
        directory.accept(document)
    assert directory.serial == -1


def test_an_older_registry_cannot_bring_a_revoked_device_back(directory):
    directory.accept(registry(2, revoked=True))
    with pytest.raises(RegistryError, match="older"):
        directory.accept(registry(1))
    assert directory.key_of("device:phone") is None
