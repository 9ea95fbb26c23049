"""Which devices are enrolled and whose data each holds, from the coordinator's signed registry."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta, Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey

from secure_gateway.errors import RegistryError

PAYLOAD_TYPE = "application/vnd.bedside.registry+json"

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class RegisteredDevice(Struct, frozen=True, kw_only=True):
    """One device: its Ed25519 key (raw, hexadecimal) and the pseudonyms whose data it holds."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    public_key: Hex32
    jurisdiction: str
    subjects: tuple[Hex32, ...] = ()
    revoked: bool = False


class Registry(Struct, frozen=True, kw_only=True):
    """The signed list of devices; `serial` rises with every change."""

    site: str
    serial: int
    devices: tuple[RegisteredDevice, ...]


class DeviceDirectory:
    """Answers who a device is and which device holds a subject's data.

    Empty until the first registry is accepted: with no registry, no device is trusted.
    """

    def __init__(self, site: str, keys: tuple[Ed25519PublicKey, ...]) -> None:
        self._site = site
        self._keys: list[Key] = [SSlibKey.from_crypto(key) for key in keys]
        self._serial = -1
        self._devices: Mapping[str, tuple[RegisteredDevice, Ed25519PublicKey]] = {}
        self._holders: Mapping[str, str] = {}
        self._revocation_listeners: list[Callable[[frozenset[str]], None]] = []

    @property
    def serial(self) -> int:
        """The registry in use; -1 when none was accepted yet."""
        return self._serial

    def accept(self, document: bytes) -> bool:
        """Take over a registry; return whether it changed anything.

        Raises:
            RegistryError: if it is not signed by a trusted key, is malformed, is of another site,
                or is older than the one in use (a replay).
        """
        registry = self._verified(document)
        if registry.site != self._site:
            raise RegistryError("the device registry belongs to another site")
        if registry.serial < self._serial:
            raise RegistryError("the device registry is older than the one in use")
        if registry.serial == self._serial:
            return False
        devices = {}
        holders = {}
        for device in registry.devices:
            if device.revoked:
                continue
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(device.public_key))
            placement = f"device:{device.id}"
            devices[placement] = (device, key)
            holders.update(dict.fromkeys(device.subjects, placement))
        gone = frozenset(self._devices) - frozenset(devices)
        self._serial, self._devices, self._holders = registry.serial, devices, holders
        for listener in self._revocation_listeners:
            listener(gone)
        return True

    def on_revocation(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` with the placements that are no longer enrolled, at each change."""
        self._revocation_listeners.append(listener)

    def key_of(self, placement: str) -> Ed25519PublicKey | None:
        """Return the key of the device `device:<id>`, or None if it is not enrolled."""
        entry = self._devices.get(placement)
        return entry[1] if entry else None

    def jurisdiction_of(self, placement: str) -> str | None:
        """Return where the device `device:<id>` legally is, or None if it is not enrolled."""
        entry = self._devices.get(placement)
        return entry[0].jurisdiction if entry else None

    def holder_of(self, pseudonym: str) -> str | None:
        """Return the placement of the device that holds the subject's data, if there is one."""
        return self._holders.get(pseudonym)

    def _verified(self, document: bytes) -> Registry:
        try:
            envelope = Envelope.from_dict(json.loads(document))
            envelope.verify(self._keys, 1)
        except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
            raise RegistryError("the device registry is not signed by a trusted key") from error
        if envelope.payload_type != PAYLOAD_TYPE:
            raise RegistryError("the signed document is not a device registry")
        try:
            return msgspec.json.decode(envelope.payload, type=Registry)
        except msgspec.ValidationError as error:
            raise RegistryError("the device registry does not fit its schema") from error
