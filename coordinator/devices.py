"""Enrolment of devices, and the signed registry that gateways trust."""

import base64
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from audit.records import DeviceChange, DeviceRecord
from coordinator.errors import EnrolmentError
from coordinator.recording import Record
from coordinator.store import Device, EnrolmentCode, HeldSubject, Registry, Store

PAYLOAD_TYPE: Final = "application/vnd.bedside.registry+json"
PROOF_PREFIX: Final = b"bedside-enrol:"
CODE_BYTES: Final = 20

_ID_BYTES: Final = 5


class DeviceRegistry:
    """The devices of one site; subjects are given as pseudonyms.

    Every change is in the audit log before it takes effect: the record is made durable inside the
    database transaction, so a change that cannot be recorded is not made.
    """

    def __init__(self, store: Store, key: Ed25519PrivateKey, site: str, record: Record) -> None:
        self._store = store
        self._record = record
        self._key = key
        self._site = site

    async def issue_code(
        self, jurisdiction: str, pseudonyms: list[str], lifetime_s: int
    ) -> tuple[str, datetime]:
        """Return a one-time enrolment code and when it expires; only its hash is kept."""
        # Base32 (RFC 4648 section 6): people read codes aloud, and none can look like an option.
        code = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode()
        expires = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        async with self._store.session() as session:
            await session.execute(
                delete(EnrolmentCode).where(EnrolmentCode.expires < datetime.now(UTC))
            )
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
            # Used up by one statement: of two devices with the same code, the database lets one in.
            entry = await session.scalar(
                update(EnrolmentCode)
                .where(
                    EnrolmentCode.code_hash == _hash(code),
                    EnrolmentCode.used.is_(False),
                    EnrolmentCode.expires > datetime.now(UTC),
                )
                .values(used=True)
                .returning(EnrolmentCode)
            )
            if entry is None:
                raise EnrolmentError("the enrolment code is unknown, was used, or has expired")
            taken = await session.scalar(select(Device.id).where(Device.public_key == public_key))
            if taken is not None:
                raise EnrolmentError("this key is enrolled already; a device makes its own key")
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
            await session.flush()
            await self._record(_record_of(device, DeviceChange.ENROLLED))
        return device

    async def revoke(self, device_id: str, principal: str) -> tuple[Device, str]:
        """Revoke a device, and return it with its record; gateways drop it at their next look.

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
                await session.flush()
            return device, await self._record(_record_of(device, DeviceChange.REVOKED, principal))

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


def _record_of(device: Device, change: DeviceChange, principal: str | None = None) -> DeviceRecord:
    return DeviceRecord(
        time=datetime.now(UTC),
        id=uuid4(),
        device=device.id,
        change=change,
        principal=principal,
        subjects=len(device.subjects),
    )


async def _raise_serial(session: AsyncSession) -> None:
    await session.execute(update(Registry).where(Registry.id == 1).values(serial=Registry.serial + 1))


def _check_proof(code: str, public_key: str, proof: str) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(proof), PROOF_PREFIX + code.encode())
    except (ValueError, InvalidSignature) as error:
        raise EnrolmentError("the proof does not show that the device holds its key") from error


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
