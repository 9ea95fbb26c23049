import asyncio
from urllib.parse import unquote

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit import Log, open_checkpoint, serve_log
from audit.merkle import leaf_hash
from audit.tiles import parse_tile_path, split_bundle

KEY = Ed25519PrivateKey.generate()
LEAVES = [b"leaf %d" % n for n in range(600)]


@pytest.fixture
async def log(tmp_path):
    log = await Log.open(tmp_path, origin="clinic/gateway-1", key=KEY)
    await asyncio.gather(*(log.append(leaf) for leaf in LEAVES))
    yield log
    await log.close()


@pytest.fixture
async def client(log):
    transport = httpx.ASGITransport(app=serve_log(log, prefix="/log"))
    async with httpx.AsyncClient(transport=transport, base_url="http://log/log") as client:
        yield client


async def test_the_checkpoint_is_fresh_and_of_what_was_answered(client, log):
    reply = await client.get("/checkpoint")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert open_checkpoint(reply.content, [log.verifier]).size == 600
    await log.append(b"one more")
    assert open_checkpoint((await client.get("/checkpoint")).content, [log.verifier]).size == 601


@pytest.mark.parametrize(
    ("path", "start", "count"),
    [
        ("/tile/entries/000", 0, 256),
        ("/tile/entries/001", 256, 256),
        ("/tile/entries/002.p/88", 512, 88),
        ("/tile/entries/002.p/40", 512, 40),
        ("/tile/entries/000.p/17", 0, 17),
    ],
)
async def test_entries_and_their_hashes_are_served_for_every_size_the_log_had(
    client, path, start, count
):
    bundle = await client.get(path)
    assert list(split_bundle(bundle.content)) == LEAVES[start : start + count]
    hashes = await client.get(path.replace("entries", "0"))
    expected = b"".join(leaf_hash(leaf) for leaf in LEAVES[start : start + count])
    assert hashes.content == expected
    for reply in (bundle, hashes):
        assert reply.headers["content-type"] == "application/octet-stream"
        assert "immutable" in reply.headers["cache-control"]


async def test_higher_levels_hold_the_roots_of_whole_tiles_only(client):
    assert len((await client.get("/tile/1/000.p/2")).content) == 64
    for path in ("/tile/1/000.p/3", "/tile/1/000", "/tile/2/000.p/1", "/tile/63/000.p/1"):
        assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/../../checkpoint",
        "/tile/0/000/../../../lock",
        "/tile/entries/%2e%2e/%2e%2e/lock",
        "/tile/0/000.p/256",
        "/tile/0/00000",
        "/tile/0/002.p/089",
        "/tile/0/000%00",
        "//checkpoint",
        "/lock",
        "/wal/00000000000000000000.wal",
        "/",
    ],
)
async def test_nothing_else_is_served(log, path):
    assert await raw_get(log, f"/log{unquote(path)}") == 404


@given(path=st.text(alphabet="tile/entriesx0123.p\\%\0~", max_size=40))
def test_only_exact_tile_paths_reach_the_files(path):
    parsed = parse_tile_path(path)
    assert parsed is None or (".." not in path and path.startswith("tile/"))


async def test_the_log_is_read_only(client):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        reply = await client.request(method, "/checkpoint")
        assert reply.status_code == 405
        assert reply.headers["allow"] == "GET, HEAD"


async def raw_get(log, path):
    """Ask with the path as it is: HTTP clients would tidy it up first."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    await serve_log(log, prefix="/log")(scope, receive, send)
    return sent[0]["status"]
