import asyncio
import shutil

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier, VerificationError
from audit.records import encode
from audit.tiles import tile_path
from audit.verify import verify_log

KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier("clinic/gateway-1", KEY.public_key())
SIZE = 300


@pytest.fixture(scope="module")
def published(tmp_path_factory, module_record):
    folder = tmp_path_factory.mktemp("log")

    async def fill():
        log = await Log.open(folder, origin=VERIFIER.name, key=KEY)
        records = [msgspec.structs.replace(module_record, rows=n) for n in range(SIZE)]
        await asyncio.gather(*(log.append(encode(record)) for record in records))
        await log.close()

    asyncio.run(fill())
    return folder


@pytest.fixture(scope="module")
def module_record():
    from datetime import UTC, datetime
    from uuid import UUID

    from audit.records import Action, Outcome, RequestRecord

    return RequestRecord(
        time=datetime(2026, 11, 23, tzinfo=UTC),
        id=UUID(int=1),
        action=Action.INFER,
        outcome=Outcome.SERVED,
        status=200,
    )


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "copy")


def change(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_log_as_published_verifies(published):
    result = verify_log(published, VERIFIER)
    assert (result.records, result.origin) == (SIZE, "clinic/gateway-1")


@pytest.mark.parametrize("index", [0, 137, 255, 256, 299])
def test_one_changed_byte_of_a_record_names_that_record(copy, index):
    bundle, position = divmod(index, 256)
    path = copy / tile_path(None, bundle, 256 if bundle == 0 else SIZE - 256)
    data = path.read_bytes()
    offset = 0
    for _ in range(position):
        offset += 2 + int.from_bytes(data[offset : offset + 2], "big")
    change(path, offset + 2 + 11)
    with pytest.raises(VerificationError, match=f"^record {index} was changed"):
        verify_log(copy, VERIFIER)


@pytest.mark.parametrize(
    "path", [tile_path(0, 0), tile_path(0, 1, SIZE - 256), tile_path(1, 0, 1), "checkpoint"]
)
def test_every_other_changed_file_is_noticed(copy, path):
    change(copy / path, 20)
    with pytest.raises(VerificationError):
        verify_log(copy, VERIFIER)


def test_a_log_rewritten_with_its_hashes_does_not_match_its_signature(
    published, tmp_path, module_record
):
    async def rewrite():
        log = await Log.open(tmp_path, origin=VERIFIER.name, key=Ed25519PrivateKey.generate())
        await log.append(encode(module_record))
        await log.close()

    asyncio.run(rewrite())
    with pytest.raises(VerificationError):
        verify_log(tmp_path, VERIFIER)
    shutil.copy(published / "checkpoint", tmp_path / "checkpoint")
    with pytest.raises(VerificationError):
        verify_log(tmp_path, VERIFIER)


@pytest.mark.parametrize("path", ["checkpoint", tile_path(None, 0), tile_path(0, 0)])
def test_a_missing_file_is_noticed(copy, path):
    (copy / path).unlink()
    with pytest.raises(VerificationError):
        verify_log(copy, VERIFIER)
