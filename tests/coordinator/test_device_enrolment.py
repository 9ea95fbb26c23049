import asyncio
import errno
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import break_syncs

from audit import LogUnavailable, Pseudonymizer
from audit.records import DeviceChange, DeviceRecord
from coordinator.devices import PROOF_PREFIX
from coordinator.errors import EnrolmentError
from secure_gateway import DeviceDirectory

SUBJECT = Pseudonymizer(bytes(32)).pseudonym("Ada Lovelace")


def identity(code: str, key: Ed25519PrivateKey | None = None) -> tuple[str, str]:
    key = key or Ed25519PrivateKey.generate()
    proof = key.sign(PROOF_PREFIX + code.encode()).hex()
    return key.public_key().public_bytes_raw().hex(), proof


async def test_a_code_becomes_a_device_once(registry, recorded):
    code, _ = await registry.issue_code("US-CA", [SUBJECT], 60)
    device = await registry.enroll(code, *identity(code))
    assert (device.jurisdiction, device.subjects[0].pseudonym) == ("US-CA", SUBJECT)
    with pytest.raises(EnrolmentError, match="was used"):
        await registry.enroll(code, *identity(code))
    (entry,) = recorded()
    assert isinstance(entry, DeviceRecord)
    assert (entry.device, entry.change, entry.subjects) == (device.id, DeviceChange.ENROLLED, 1)


async def test_a_code_can_be_read_aloud_and_given_as_an_option(registry, monkeypatch):
    # These bytes begin with a dash in base64url; a command line takes that for an option's name.
    monkeypatch.setattr("coordinator.devices.secrets.token_bytes", lambda size: b"\xf8" * size)
    code, _ = await registry.issue_code("US-CA", [], 60)
    assert re.fullmatch(r"[A-Z2-7]{32}", code)


async def test_of_devices_that_race_for_a_code_one_is_enrolled(registry, recorded):
    code, _ = await registry.issue_code("US-CA", [], 60)
    attempts = [registry.enroll(code, *identity(code)) for _ in range(8)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, EnrolmentError) for result in results) == 7
    assert len(await registry.devices()) == len(recorded()) == 1


async def test_an_expired_code_is_refused_and_forgotten(registry, store, tmp_path):
    code, _ = await registry.issue_code("US-CA", [SUBJECT], -1)
    with pytest.raises(EnrolmentError, match="expired"):
        await registry.enroll(code, *identity(code))
    await registry.issue_code("US-CA", [], 60)
    assert SUBJECT not in _dump(tmp_path)


async def test_a_proof_by_another_key_is_refused_and_leaves_the_code_good(registry):
    code, _ = await registry.issue_code("US-CA", [], 60)
    public_key, _ = identity(code)
    _, others_proof = identity(code)
    with pytest.raises(EnrolmentError, match="proof"):
        await registry.enroll(code, public_key, others_proof)
    assert await registry.enroll(code, *identity(code))


async def test_a_key_is_enrolled_only_once_and_leaves_the_code_good(registry):
    key = Ed25519PrivateKey.generate()
    first, _ = await registry.issue_code("US-CA", [], 60)
    await registry.enroll(first, *identity(first, key))
    second, _ = await registry.issue_code("US-CA", [], 60)
    with pytest.raises(EnrolmentError, match="enrolled already"):
        await registry.enroll(second, *identity(second, key))
    assert await registry.enroll(second, *identity(second))


async def test_neither_the_code_nor_the_subject_is_stored(registry, tmp_path):
    code, _ = await registry.issue_code("US-CA", [SUBJECT], 60)
    await registry.enroll(code, *identity(code))
    stored = _dump(tmp_path)
    assert SUBJECT in stored
    assert code not in stored
    assert "Lovelace" not in stored


async def test_a_device_is_not_enrolled_when_the_log_cannot_be_written(registry, log, monkeypatch):
    code, _ = await registry.issue_code("US-CA", [], 60)

    with monkeypatch.context() as broken:
        break_syncs(broken, errno.ENOSPC)
        with pytest.raises(LogUnavailable):
            await registry.enroll(code, *identity(code))
    assert await registry.devices() == []
    assert await registry.serial() == 0
    assert await registry.enroll(code, *identity(code))


async def test_gateways_accept_the_registry_and_drop_revoked_devices(registry, keys, recorded):
    directory = DeviceDirectory("mercy", (keys.registry.public_key(),))
    code, _ = await registry.issue_code("US-CA", [SUBJECT], 60)
    device = await registry.enroll(code, *identity(code))
    serial, before = await registry.document()
    assert directory.accept(before)
    assert directory.holder_of(SUBJECT) == f"device:{device.id}"

    _, place = await registry.revoke(device.id, "o.ramos")
    later, after = await registry.document()
    assert later == serial + 1
    assert directory.accept(after)
    assert directory.holder_of(SUBJECT) is None
    entry = recorded()[-1]
    assert (entry.change, entry.principal) == (DeviceChange.REVOKED, "o.ramos")
    assert place == f"mercy/coordinator#{len(recorded()) - 1}"


async def test_revoking_again_changes_nothing_and_an_unknown_device_is_an_error(registry):
    code, _ = await registry.issue_code("US-CA", [], 60)
    device = await registry.enroll(code, *identity(code))
    await registry.revoke(device.id, "o.ramos")
    serial = await registry.serial()
    await registry.revoke(device.id, "o.ramos")
    assert await registry.serial() == serial
    with pytest.raises(EnrolmentError, match="no such device"):
        await registry.revoke("device-unknown", "o.ramos")


def _dump(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "coordinator" / "coordinator.sqlite")) as database:
        return "\n".join(database.iterdump())
