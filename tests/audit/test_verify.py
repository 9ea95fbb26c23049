import asyncio
import shutil

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier, VerificationError
from audit.merkle import leaf_hash
from audit.records import encode
from audit.tiles import bundle_entries, split_bundle, tile_path
from audit.verify import read_checkpoint, verify_log, verify_tree

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


def test_a_changed_length_of_a_record_names_that_record(copy):
    path = copy / tile_path(None, 0)
    data = path.read_bytes()
    offset = 0
    for _ in range(100):
        offset += 2 + int.from_bytes(data[offset : offset + 2], "big")
    change(path, offset + 1)
    with pytest.raises(VerificationError, match=r"^record 100 was changed"):
        verify_log(copy, VERIFIER)


def test_a_changed_hash_is_not_blamed_on_the_record(copy):
    change(copy / tile_path(0, 0), 32 * 77)
    with pytest.raises(VerificationError, match="record 77 and its hash in tile/0/000 differ"):
        verify_log(copy, VERIFIER)


def test_records_rewritten_with_their_hashes_do_not_add_up(copy):
    leaves = list(split_bundle((copy / tile_path(None, 0)).read_bytes()))
    leaves[5] = leaves[6]
    (copy / tile_path(None, 0)).write_bytes(bundle_entries(leaves))
    (copy / tile_path(0, 0)).write_bytes(b"".join(map(leaf_hash, leaves)))
    with pytest.raises(VerificationError, match="rewritten together"):
        verify_log(copy, VERIFIER)


@pytest.mark.parametrize("level", [None, 0])
def test_nothing_may_follow_the_last_record(copy, level):
    path = copy / tile_path(level, 1, SIZE - 256)
    with path.open("ab") as file:
        file.write(bytes(32))
    with pytest.raises(VerificationError):
        verify_log(copy, VERIFIER)


def test_a_log_of_nothing_verifies(tmp_path):
    async def create():
        await (await Log.open(tmp_path, origin=VERIFIER.name, key=KEY)).close()

    asyncio.run(create())
    assert verify_log(tmp_path, VERIFIER).records == 0


async def test_a_log_that_is_being_written_verifies_at_every_moment(tmp_path, module_record):
    """Its files change under the reader: what an earlier checkpoint signs must still be there."""
    log = await Log.open(tmp_path, origin=VERIFIER.name, key=KEY)
    leaf = encode(module_record)
    await log.append(leaf)
    checkpoints = []
    for _ in range(8):
        while log._publishing is not None:
            await asyncio.wait([log._publishing])
        checkpoints.append(read_checkpoint(tmp_path, VERIFIER))
        await asyncio.gather(*(log.append(leaf) for _ in range(100)))
        for checkpoint in checkpoints:
            assert verify_tree(tmp_path, checkpoint).records == checkpoint.size
    await log.close()
    assert [checkpoint.size for checkpoint in checkpoints] == [1 + 100 * n for n in range(8)]
    for checkpoint in checkpoints:
        assert verify_tree(tmp_path, checkpoint).records == checkpoint.size
