"""Promise 4 holds for a log that was pruned, and a record that is on hold never goes.

The gateway serves all the while, and the search index is in PostgreSQL. Seen to fail: with the holds
left out of `Retention.plans` the held record goes; with `catch_up` left out of `Retention.carry_out`
the index keeps what was pruned.
"""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from support import GatewayProcess, call, make_site, publish_linear
from support.crowd import Crowd
from support.outsider import mth, open_checkpoint, path, read_log
from support.postgres import postgres
from support.sites import ROW

from audit.index import RecordIndex, catch_up, check
from audit.records import HoldScope, encode
from bedside.retention import Retention

OLD, SIZE, HELD = 512, 600, 300
LOG = "clinic/gateway-1"


@pytest.fixture
def site(tmp_path):
    with postgres() as address:
        site = make_site(tmp_path, audit={"index": address})
        publish_linear(site, tmp_path)
        site.bundles().settle()
        yield site


def write(site, record):
    """Write 512 records of 2018, of which one is of another model, and 88 of now."""
    first = datetime(2018, 1, 1, tzinfo=UTC)
    leaves = [
        encode(
            msgspec.structs.replace(
                record,
                id=UUID(int=number),
                time=first + timedelta(hours=number) if number < OLD else datetime.now(UTC),
                model="retina" if number == HELD else "sepsis",
            )
        )
        for number in range(SIZE)
    ]

    async def append():
        log = await site.open_log("gateway-1")
        await asyncio.gather(*(log.append(leaf) for leaf in leaves))
        await log.close()

    asyncio.run(append())
    return leaves


def found_in(folder, leaves):
    content = b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return [number for number, leaf in enumerate(leaves) if leaf in content]


def prune(site):
    """Decide, have the running gateway carry it out, and return what the index still holds."""

    async def work():
        index = await RecordIndex.open(site.index_address)
        try:
            # Indexed first, so that the index has something to lose.
            await catch_up(index, site.log_sources())
            await Retention(site).decide("c.officer")
            gone = await Retention(site).carry_out(index, lambda _: None)
            await check(index, site.log_sources())
            (first, *_) = await index.leaves(LOG, 0, 1)
            return gone, first["position"]
        finally:
            await index.close()

    return asyncio.run(work())


def outsider_verifies(gateway, minimum):
    """Every hash is there and adds up to the signed root, and every record that was kept."""
    key = gateway.site.log_verifier("gateway-1").key.public_bytes_raw()
    size, root = open_checkpoint(call("GET", f"{gateway.url}/checkpoint").body, LOG, key)
    entries, hashes = read_log(gateway.url, size, minimum)
    assert mth(hashes) == root
    assert [hashlib.sha256(b"\x00" + entry).digest() for entry in entries] == hashes[minimum:]
    for bundle in range(minimum // 256):
        gone = call("GET", f"{gateway.url}/{path('entries', bundle, 256)}")
        assert gone.status in (404, 410)
    return entries


def test_a_held_record_stays_and_a_pruned_log_verifies_while_it_is_written(
    site, tmp_path, request_record
):
    leaves = write(site, request_record)
    with (
        GatewayProcess(site, tmp_path) as gateway,
        Crowd(gateway.infer_url, gateway.token(), ROW, callers=3) as load,
    ):
        retention = Retention(site)
        asyncio.run(retention.place("LH-2026-0042", HoldScope(models=("retina",)), "c.officer"))
        for _ in range(2):
            _, lowest = prune(site)
            assert lowest == 256
            # Its whole bundle stays, and what is before it went.
            assert found_in(site.data, leaves) == list(range(256, SIZE))
            assert outsider_verifies(gateway, 256)[HELD - 256] == leaves[HELD]
        asyncio.run(retention.release("LH-2026-0042", "c.officer"))
        assert prune(site) == (256, OLD)
        assert found_in(site.data, leaves) == list(range(OLD, SIZE))
        entries = outsider_verifies(gateway, OLD)
        assert entries[: SIZE - OLD] == leaves[OLD:]
        load.wait_for(10)
    assert set(load.statuses) == {200}
    assert len(entries) > SIZE - OLD
