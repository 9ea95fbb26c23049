"""Enrolment of devices, and the signed registry that gateways trust."""

import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coordinator.errors import EnrolmentError
from coordinator.store import Device, EnrolmentCode, HeldSubject, Registry, Store

PAYLOAD_TYPE: Final = "application/vnd.bedside.registry+json"
PROOF_PREFIX: Final = b"bedside-enrol:"
CODE_BYTES: Final = 20

_ID_BYTES: Final = 5


class DeviceRegistry:
    """The devices of one site; subjects are given as pseudonyms."""

    def __init__(self, store: Store, key: Ed25519PrivateKey, site: str) -> None:
        self._store = store
        self._key = key
        self._site = site

    async def issue_code(
        self, jurisdiction: str, pseudonyms: list[str], lifetime_s: int
    ) -> tuple[str, datetime]:
        """Return a one-time enrolment code and when it expires; only its hash is kept."""
        code = secrets.token_urlsafe(CODE_BYTES)
        expires = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        async with self._store.session() as session:
            session.add(
                EnrolmentCode(
                    code_hash=_hash(code),
                    jurisdiction=jurisdiction,
                    subjects=sorted(set(pseudonyms)),
                    expires=expires,
                    used=False,
                )
            )
        return code, expires

    async def enroll(self, code: str, public_key: str, proof: str) -> Device:
        """Return the device that a code becomes.

        `proof` is the key's signature over "bedside-enrol:" and the code: it shows that whoever
        enrols holds the private key.

        Raises:
            EnrolmentError: if the code is unknown, used or expired, or the proof does not verify.
        """
        _check_proof(code, public_key, proof)
        async with self._store.session() as session:
            entry = await session.get(EnrolmentCode, _hash(code))
            if entry is None or entry.used or _utc(entry.expires) < datetime.now(UTC):
                raise EnrolmentError("the enrolment code is unknown, was used, or has expired")
            taken = await session.scalar(select(Device).where(Device.public_key == public_key))
            if taken is not None:
                raise EnrolmentError("this key is enrolled already; a device makes its own key")
            entry.used = True
            device = Device(
                id=secrets.token_hex(_ID_BYTES),
                public_key=public_key,
                jurisdiction=entry.jurisdiction,
                enrolled=datetime.now(UTC),
                revoked=False,
                subjects=[HeldSubject(pseudonym=pseudonym) for pseudonym in entry.subjects],
            )
            session.add(device)
            await _raise_serial(session)
        return device

    async def revoke(self, device_id: str) -> Device:
        """Revoke a device; gateways drop it with their next look at the registry.

        Raises:
            EnrolmentError: if there is no such device.
        """
        async with self._store.session() as session:
            device = await session.get(Device, device_id)
            if device is None:
                raise EnrolmentError("no such device is enrolled")
            if not device.revoked:
                device.revoked = True
                await _raise_serial(session)
        return device

    async def devices(self) -> list[Device]:
        """Return every device, by id."""
        async with self._store.session() as session:
            return list(await session.scalars(select(Device).order_by(Device.id)))

    async def serial(self) -> int:
        """Return the registry's serial."""
        async with self._store.session() as session:
            return (await session.get_one(Registry, 1)).serial

    async def document(self) -> tuple[int, bytes]:
        """Return the registry's serial and the signed registry."""
        async with self._store.session() as session:
            registry = await session.get_one(Registry, 1)
            devices = await session.scalars(select(Device).order_by(Device.id))
            fields = {
                "site": self._site,
                "serial": registry.serial,
                "issued": datetime.now(UTC),
                "devices": [
                    {
                        "id": device.id,
                        "public_key": device.public_key,
                        "jurisdiction": device.jurisdiction,
                        "subjects": sorted(held.pseudonym for held in device.subjects),
                        "revoked": device.revoked,
                    }
                    for device in devices
                ],
            }
        payload = msgspec.json.encode(fields, order="deterministic")
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(CryptoSigner(self._key))
        return registry.serial, json.dumps(envelope.to_dict()).encode()


class DeviceKeys:
    """The keys of enrolled devices in memory, read again when the registry has changed."""

    def __init__(self) -> None:
        self._serial = -1
        self._keys: dict[str, Ed25519PublicKey] = {}

    def key_of(self, placement: str) -> Ed25519PublicKey | None:
        """Return the key of `device:<id>`, or None if it is not enrolled."""
        return self._keys.get(placement)

    async def refresh(self, registry: DeviceRegistry) -> None:
        """Take up changes of the registry."""
        serial = await registry.serial()
        if serial == self._serial:
            return
        self._keys = {
            f"device:{device.id}": Ed25519PublicKey.from_public_bytes(bytes.fromhex(device.public_key))
            for device in await registry.devices()
            if not device.revoked
        }
        self._serial = serial


async def _raise_serial(session: AsyncSession) -> None:
    registry = await session.get_one(Registry, 1, with_for_update=True)
    registry.serial += 1


def _check_proof(code: str, public_key: str, proof: str) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(proof), PROOF_PREFIX + code.encode())
    except (ValueError, InvalidSignature) as error:
        raise EnrolmentError("the proof does not show that the device holds its key") from error


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _utc(time: datetime) -> datetime:
    # SQLite keeps no time zone; everything stored is UTC.
    return time if time.tzinfo else time.replace(tzinfo=UTC)
