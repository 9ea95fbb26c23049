"""A pruned log: its records are gone from every file, and every proof can still be made.

Seen to fail: with `WriteAheadLog.compact` left out of `Log._prune`, with `remove_bundles` stopping one
bundle early, and with `write_minimum` after the removal instead of before it.
"""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from support.killed_prunes import MINIMUM, ORDER
from support.log_writers import KEY, ORIGIN, leaf

from audit import Log, LogCorrupt, NoteVerifier, VerificationError, open_checkpoint, serve_log
from audit import log as log_module
from audit import segment as segment_module
from audit.errors import PruneRefused, RecordsPruned
from audit.follow import LogFollower
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.minimum import FILE, open_minimum, read_minimum
from audit.published import FileNodes
from audit.retention import PruneOrder
from audit.source import LogSource
from audit.tiles import tile_path
from audit.verify import read_checkpoint, read_entries, verify_log, verify_tree

TESTS = Path(__file__).parents[1]
VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())
SIZE = 1320


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(segment_module, "SEGMENT_BYTES", 24 * 1024)
    monkeypatch.setattr(log_module, "PUBLISH_INTERVAL_S", 0.002)


async def open_log(folder):
    return await Log.open(folder, origin=ORIGIN, key=KEY)


async def fill(folder, size=SIZE):
    log = await open_log(folder)
    for start in range(0, size, 100):
        await asyncio.gather(*(log.append(leaf(n)) for n in range(start, min(start + 100, size))))
    return log


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A closed log of 1,320 records, all of them still in its write-ahead log."""
    folder = tmp_path_factory.mktemp("template") / "log"
    patch = pytest.MonkeyPatch()
    patch.setattr(segment_module, "SEGMENT_BYTES", 24 * 1024)

    async def write():
        await (await fill(folder)).close()

    asyncio.run(write())
    patch.undo()
    return folder


def found_in(folder, numbers):
    """Return which of the records with these numbers stand in any file."""
    content = b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return [number for number in numbers if leaf(number) in content]


def check_kept(folder, size):
    """Every record from the minimum on is there and is proved; no file holds one below."""
    verified = verify_log(folder, VERIFIER)
    assert (verified.minimum, verified.records) == (MINIMUM, size - MINIMUM)
    assert verified.decision == ORDER.decision
    assert read_entries(folder, size, MINIMUM) == [leaf(n) for n in range(MINIMUM, size)]
    assert found_in(folder, range(MINIMUM)) == []


async def test_pruned_records_are_gone_from_every_file_and_every_proof_still_verifies(tmp_path):
    folder = tmp_path / "log"
    log = await fill(folder)
    before = log.checkpoint
    roots = {size: log._tree.root_at(size) for size in (1, 255, 256, 700, MINIMUM, 1000)}
    assert found_in(folder, range(SIZE)) == list(range(SIZE))
    await log.prune(ORDER)
    assert log.minimum_index == MINIMUM
    assert found_in(folder, range(SIZE)) == list(range(MINIMUM, SIZE))
    for number in range(SIZE, SIZE + 300):
        await log.append(leaf(number))
    after = log.checkpoint
    with pytest.raises(RecordsPruned, match=f"begins at record {MINIMUM}"):
        log.entries(MINIMUM - 1, SIZE)
    assert log.entries(MINIMUM, SIZE + 300) == [leaf(n) for n in range(MINIMUM, SIZE + 300)]
    await log.close()
    check_kept(folder, SIZE + 300)
    log = await open_log(folder)
    # Also of records that are gone, and of trees from before.
    for index in (0, 255, 256, MINIMUM - 1, MINIMUM, SIZE + 299):
        proof = log.inclusion_proof(index, after.size)
        verify_inclusion(leaf_hash(leaf(index)), index, after.size, proof, after.root)
    for size, root in (*roots.items(), (before.size, before.root)):
        proof = log.consistency_proof(size, after.size)
        verify_consistency(size, after.size, proof, root, after.root)
    assert FileNodes(folder, after.size).node(0, 5) == leaf_hash(leaf(5))
    await log.close()


async def test_a_log_that_is_pruned_to_its_very_end_goes_on(tmp_path):
    log = await fill(tmp_path, 512)
    await log.prune(PruneOrder(index=512, newest=ORDER.newest, decision=ORDER.decision))
    await log.close()
    assert verify_log(tmp_path, VERIFIER).records == 0
    assert found_in(tmp_path, range(512)) == []
    log = await open_log(tmp_path)
    assert await log.append(leaf(512)) == 512
    await log.close()
    assert verify_log(tmp_path, VERIFIER).records == 1


async def test_writers_are_answered_while_a_log_is_pruned(tmp_path):
    log = await fill(tmp_path, 800)
    pruning = asyncio.create_task(log.prune(ORDER))
    while not pruning.done():
        number = log.size
        assert await log.append(leaf(number)) == number
    await pruning
    size = log.size
    assert size > 800
    await log.close()
    check_kept(tmp_path, size)


async def test_only_whole_bundles_that_are_signed_for_are_pruned(tmp_path):
    log = await fill(tmp_path, 300)
    for index in (100, 512):
        order = PruneOrder(index=index, newest=ORDER.newest, decision=ORDER.decision)
        with pytest.raises(PruneRefused, match="published checkpoint"):
            await log.prune(order)
    assert log.minimum_index == 0
    assert log.entries(0, 300) == [leaf(n) for n in range(300)]
    await log.close()


def test_killed_before_any_of_its_steps_a_prune_loses_nothing_and_is_finished_later(template, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "support.killed_prunes", str(template), str(tmp_path)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    outcomes = done.stdout.split()
    assert outcomes[-1] == "done", done.stderr
    assert outcomes[:-1] == ["killed"] * (len(outcomes) - 1)
    assert len(outcomes) > 25

    async def finish(folder):
        begun = (folder / FILE).exists()
        log = await open_log(folder)
        if begun:
            assert log.minimum_index == MINIMUM
        else:
            assert log.entries(0, SIZE) == [leaf(n) for n in range(SIZE)]
        await log.prune(ORDER)
        assert await log.append(leaf(SIZE)) == SIZE
        await log.close()
        check_kept(folder, SIZE + 1)
        return begun

    async def finish_all():
        return [await finish(tmp_path / str(step)) for step in range(len(outcomes))]

    begun = asyncio.run(finish_all())
    assert not begun[0]
    assert begun[-1]


async def test_a_minimum_index_is_signed_and_removals_that_it_does_not_say_are_found(tmp_path):
    folder = tmp_path / "log"
    await (await fill(folder)).close()
    (folder / tile_path(None, 0)).unlink()
    with pytest.raises(VerificationError, match="is missing"):
        verify_log(folder, VERIFIER)
    log = await open_log(folder)
    await log.prune(ORDER)
    await log.close()
    note = (folder / FILE).read_bytes()
    assert read_minimum(folder, VERIFIER) == open_minimum(note, VERIFIER)
    with pytest.raises(VerificationError):
        open_checkpoint(note, [VERIFIER])
    (folder / tile_path(None, MINIMUM // 256)).unlink()
    with pytest.raises(VerificationError, match="is missing"):
        verify_log(folder, VERIFIER)
    (folder / FILE).write_bytes(note.replace(b"\n768\n", b"\n1024\n"))
    with pytest.raises(VerificationError, match="does not verify"):
        verify_log(folder, VERIFIER)
    with pytest.raises(LogCorrupt, match="minimum index"):
        await open_log(folder)
    (folder / FILE).unlink()
    with pytest.raises(VerificationError, match="is missing"):
        verify_log(folder, VERIFIER)


@pytest.mark.parametrize(
    "lines",
    [
        ["bedside minimum index 2", ORIGIN, "256", "2019-01-01T00:00:00+00:00", "x#0"],
        ["bedside minimum index 1", "clinic/other", "256", "2019-01-01T00:00:00+00:00", "x#0"],
        ["bedside minimum index 1", ORIGIN, "255", "2019-01-01T00:00:00+00:00", "x#0"],
        ["bedside minimum index 1", ORIGIN, "0256", "2019-01-01T00:00:00+00:00", "x#0"],
        ["bedside minimum index 1", ORIGIN, "256", "2019-01-01T00:00:00", "x#0"],
        ["bedside minimum index 1", ORIGIN, "256", "yesterday", "x#0"],
        ["bedside minimum index 1", ORIGIN, "256"],
    ],
)
def test_what_is_no_minimum_index_of_this_log_is_refused(lines):
    from audit import NoteSigner

    with pytest.raises(VerificationError, match="minimum index"):
        open_minimum(NoteSigner(ORIGIN, KEY).sign("\n".join((*lines, ""))), VERIFIER)


async def test_the_minimum_index_is_served_and_pruned_bundles_are_gone(tmp_path):
    log = await fill(tmp_path)
    transport = httpx.ASGITransport(app=serve_log(log))
    async with httpx.AsyncClient(transport=transport, base_url="http://log") as client:
        assert (await client.get(f"/{FILE}")).status_code == 404
        await log.prune(ORDER)
        served = await client.get(f"/{FILE}")
        assert open_minimum(served.content, VERIFIER).index == MINIMUM
        assert served.headers["cache-control"] == "no-store"
        for bundle in range(SIZE // 256):
            gone = await client.get(f"/{tile_path(None, bundle)}")
            assert gone.status_code == (410 if bundle < MINIMUM // 256 else 200)
            assert (await client.get(f"/{tile_path(0, bundle)}")).status_code == 200
        assert (await client.get(f"/{tile_path(None, 0, 7)}")).status_code == 410
    await log.close()


async def test_a_follower_passes_over_what_was_pruned_and_says_so(tmp_path, caplog):
    log = await fill(tmp_path / "log")
    await log.prune(ORDER)
    await log.close()
    taken, enough = [], asyncio.Event()

    async def take(entries):
        taken.extend(entry.number for entry in entries)
        if taken[-1] == SIZE - 1:
            enough.set()
        return 0

    follower = LogFollower(
        LogSource(folder=tmp_path / "log", verifier=VERIFIER),
        tmp_path / "position",
        take,
        wanted=lambda _: True,
        batch=64,
        from_start=True,
    )
    await follower.start()
    await asyncio.wait_for(enough.wait(), 30)
    await follower.close()
    assert taken == list(range(MINIMUM, SIZE))
    assert f"records 0 to {MINIMUM - 1} of {ORIGIN} were pruned" in caplog.text


async def test_a_log_that_was_pruned_twice_says_what_the_second_decision_was(tmp_path):
    log = await fill(tmp_path)
    await log.prune(PruneOrder(index=256, newest=ORDER.newest, decision="clinic/retention#7"))
    later = datetime(2019, 6, 1, tzinfo=UTC)
    await log.prune(PruneOrder(index=1024, newest=later, decision="clinic/retention#9"))
    # An older order, taken up late, changes nothing.
    await log.prune(ORDER)
    await log.close()
    minimum = read_minimum(tmp_path, VERIFIER)
    assert (minimum.index, minimum.newest, minimum.decision) == (1024, later, "clinic/retention#9")
    assert verify_tree(tmp_path, read_checkpoint(tmp_path, VERIFIER), 1024).records == SIZE - 1024
    assert found_in(tmp_path, range(1024)) == []
