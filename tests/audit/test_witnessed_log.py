"""A log publishes what its witnesses' quorum cosigned, and no more; dead and lying ones cannot stop it.

Seen to fail: with `satisfied` not asked a log takes up a checkpoint that nobody cosigned; with
`Log.published` the newest checkpoint, readers get what no witness saw.
"""

import asyncio
import shutil
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import (
    Log,
    LogCorrupt,
    LogUnavailable,
    NoteVerifier,
    VerificationError,
    WitnessEntry,
    Witnesses,
)
from audit.cosignature import Cosigner, cosignatures_of, require_quorum
from audit.cosigning import WitnessState
from audit.records import encode
from audit.verify import read_checkpoint, read_cosigned, verify_log
from audit.witness import Witness, WitnessMemory

ORIGIN = "clinic/gateway-1"
KEY = Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier(ORIGIN, KEY.public_key())


class Peer:
    """A witness behind real HTTP; `lie` replaces its answer."""

    def __init__(self, folder, name):
        self.cosigner = Cosigner(name, Ed25519PrivateKey.generate())
        self.memory = WitnessMemory(folder / f"{name}.sqlite", create=True)
        self.witness = Witness(self.cosigner, [VERIFIER], self.memory)
        self.lie = None
        self.asked = asyncio.Event()

    async def answer(self, request):
        body = await request.read()
        self.asked.set()
        if self.lie is not None:
            return await self.lie(body)
        added = self.witness.add_checkpoint(body)
        return web.Response(
            status=added.status, body=added.body.encode(), headers={"Content-Type": added.content_type}
        )

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_post("/add-checkpoint", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.entry = WitnessEntry(f"http://{host}:{port}", self.cosigner.key)
        try:
            yield self
        finally:
            await runner.cleanup()
            self.memory.close()


@pytest.fixture
async def peers(tmp_path):
    (tmp_path / "peers").mkdir()
    pair = [Peer(tmp_path / "peers", name) for name in ("w1", "w2")]
    async with pair[0].serving(), pair[1].serving():
        yield pair


async def open_log(folder, peers, quorum, **options):
    witnesses = Witnesses([peer.entry for peer in peers], quorum=quorum, interval_s=0.01)
    return await Log.open(folder, origin=ORIGIN, key=KEY, witnesses=witnesses, **options)


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 the log tells nobody when a witness has answered
            await asyncio.sleep(0.005)


async def published(log, size):
    await until(lambda: log.published is not None and log.published.size >= size)
    return log.published


async def fill(log, count):
    await asyncio.gather(*(log.append(b"leaf %d" % n) for n in range(count)))


async def test_what_is_published_carries_every_witnesses_cosignature(tmp_path, peers):
    log = await open_log(tmp_path / "log", peers, 2)
    for size in (300, 600):
        await fill(log, 300)
        checkpoint = await published(log, size)
        assert len(cosignatures_of(checkpoint.note, [peer.cosigner.key for peer in peers])) == 2
    assert (tmp_path / "log/checkpoint").read_bytes() == checkpoint.note
    await log.close()
    log = await open_log(tmp_path / "log", peers, 2)
    assert log.published == checkpoint
    await log.close()


async def test_a_dead_witness_stops_no_record_but_the_publication(tmp_path, peers):
    dead = asyncio.Event()

    async def hang(_):
        await dead.wait()
        return web.Response(status=500)

    log = await open_log(tmp_path / "log", peers, 2)
    await fill(log, 10)
    first = await published(log, 10)
    peers[1].lie = hang
    await fill(log, 10)
    peers[1].asked.clear()
    await asyncio.wait_for(peers[1].asked.wait(), 20)
    assert log.size == 20
    assert log.writable
    assert log.published == first
    assert read_checkpoint(tmp_path / "log", VERIFIER).size == 10
    dead.set()
    peers[1].lie = None
    await published(log, 20)
    assert set(log.witness_states.values()) == {WitnessState.COSIGNED}
    await log.close()


async def lie_with_nonsense(_):
    return web.Response(body=b"x" * 200_000)


async def lie_with_a_size(_):
    return web.Response(status=409, body=b"999999\n")


async def send_elsewhere(_):
    return web.Response(status=307, headers={"Location": "/add-checkpoint"})


def with_the_honest_ones_words(honest):
    async def lie(body):
        text = body.partition(b"\n\n")[2].decode().partition("\n\n")[0] + "\n"
        return web.Response(body=honest.cosigner.cosign(text, 5).encode())

    return lie


def over_another_tree(liar):
    async def lie(_):
        other = f"{ORIGIN}\n3\n{'A' * 43}=\n"
        return web.Response(body=liar.cosigner.cosign(other, 5).encode())

    return lie


@pytest.mark.parametrize("kind", ["nonsense", "size", "redirect", "stolen", "another"])
async def test_of_two_witnesses_one_that_lies_neither_counts_nor_harms(tmp_path, peers, kind):
    honest, liar = peers
    liar.lie = {
        "nonsense": lie_with_nonsense,
        "size": lie_with_a_size,
        "redirect": send_elsewhere,
        "stolen": with_the_honest_ones_words(honest),
        "another": over_another_tree(liar),
    }[kind]
    log = await open_log(tmp_path / "log", peers, 1)
    await fill(log, 5)
    note = (await published(log, 5)).note
    assert log.witness_states["w2"] is not WitnessState.COSIGNED
    await log.close()
    keys = [peer.cosigner.key for peer in peers]
    assert [found.witness.name for found in cosignatures_of(note, keys)] == ["w1"]
    strict = await open_log(tmp_path / "strict", peers, 2)
    await fill(strict, 5)
    liar.asked.clear()
    await asyncio.wait_for(liar.asked.wait(), 20)
    assert strict.published is None
    await strict.close()
    assert not (tmp_path / "strict/checkpoint").exists()


async def test_a_witness_that_saw_more_or_another_history_is_an_alarm(tmp_path, peers):
    folder = tmp_path / "log"
    log = await open_log(folder, peers, 2)
    await fill(log, 10)
    await published(log, 10)
    await log.close()
    shutil.copytree(folder, tmp_path / "fork")
    log = await open_log(folder, peers, 2)
    await fill(log, 10)
    await published(log, 20)
    await log.close()

    fork = await open_log(tmp_path / "fork", peers, 1)
    await fork.append(b"another history")
    await until(lambda: set(fork.witness_states.values()) == {WitnessState.AHEAD})
    await asyncio.gather(*(fork.append(b"forked %d" % n) for n in range(9)))
    await until(lambda: set(fork.witness_states.values()) == {WitnessState.CONTRADICTED})
    assert fork.published.size == 10
    await fork.close()
    assert [peer.memory.contradictions()[0].size for peer in peers] == [20, 20]


async def test_a_site_may_refuse_to_serve_unwitnessed_for_long(tmp_path, peers):
    async def refuse(_):
        return web.Response(status=503)

    for peer in peers:
        peer.lie = refuse
    log = await open_log(tmp_path / "log", peers, 1, refuse_after_s=0.2)
    await until(lambda: not log.writable)
    with pytest.raises(LogUnavailable, match="witnesses have been silent"):
        log.append(b"refused")
    peers[0].lie = None
    await until(lambda: log.writable)
    await log.append(b"taken")
    await log.close()


async def test_a_checkpoint_nobody_cosigned_is_not_taken_up(tmp_path, peers, request_record):
    log = await Log.open(tmp_path / "log", origin=ORIGIN, key=KEY)
    await log.append(encode(request_record))
    await log.close()
    keys = [peer.cosigner.key for peer in peers]
    with pytest.raises(VerificationError, match="0 of the 2 witnesses"):
        verify_log(tmp_path / "log", VERIFIER, witnesses=keys, quorum=1)
    log = await open_log(tmp_path / "log", peers, 2)
    assert log.published is None
    note = (await published(log, 1)).note
    await log.close()
    assert len(require_quorum(note, keys, 2)) == 2
    found = verify_log(tmp_path / "log", VERIFIER, witnesses=keys, quorum=2)
    assert {cosigned.witness.name for cosigned in found.cosignatures} == {"w1", "w2"}


def test_a_quorum_that_cannot_be_reached_is_refused():
    entry = WitnessEntry("http://w", Cosigner("w", Ed25519PrivateKey.generate()).key)
    for entries, quorum in (([entry], 2), ([entry], 0), ([entry, entry], 1)):
        with pytest.raises(ValueError, match=r"same key|cannot be reached"):
            Witnesses(entries, quorum=quorum)


async def unheld(folder, peers, quorum=2):
    return await open_log(folder, peers, quorum, withheld=False)


async def test_what_is_not_withheld_is_published_at_once_and_cosigned_beside(tmp_path, peers):
    async def refuse(_):
        return web.Response(status=503)

    folder = tmp_path / "log"
    log = await unheld(folder, peers)
    await fill(log, 10)
    await until(lambda: (folder / "cosigned").exists() and read_cosigned(folder, VERIFIER).size == 10)
    peers[1].lie = refuse
    await fill(log, 10)
    assert log.published.size == 20
    await log.close()
    assert read_checkpoint(folder, VERIFIER).size == 20
    seen = read_cosigned(folder, VERIFIER)
    assert seen.size == 10
    assert len(cosignatures_of(seen.note, [peer.cosigner.key for peer in peers])) == 2

    peers[1].lie = None
    log = await unheld(folder, peers)
    await log.close()
    # Once nothing is left to cosign, the newest checkpoint carries the lines itself, also when the log
    # is opened again while nobody answers.
    for _ in range(2):
        note = read_checkpoint(folder, VERIFIER).note
        assert note == (folder / "cosigned").read_bytes()
        assert len(cosignatures_of(note, [peer.cosigner.key for peer in peers])) == 2
        peers[0].lie = peers[1].lie = refuse
        log = await unheld(folder, peers)
        await log.close()


async def test_verification_says_how_far_the_witnesses_saw_a_log(tmp_path, peers, request_record):
    folder = tmp_path / "log"
    keys = [peer.cosigner.key for peer in peers]
    log = await unheld(folder, peers)
    await log.append(encode(request_record))
    await log.close()
    log = await Log.open(tmp_path / "other", origin=ORIGIN, key=KEY)
    await log.append(encode(msgspec.structs.replace(request_record, status=201)))
    await log.close()
    found = verify_log(folder, VERIFIER, witnesses=keys, quorum=2)
    assert (found.records, found.cosigned, len(found.cosignatures)) == (1, 1, 2)
    # An owner who shows another history finds no witness for it, and what they saw does not fit it.
    shutil.copy(folder / "cosigned", tmp_path / "other/cosigned")
    with pytest.raises(VerificationError, match="another history"):
        verify_log(tmp_path / "other", VERIFIER, witnesses=keys, quorum=2)
    with pytest.raises(LogCorrupt, match="not those that were signed"):
        await unheld(tmp_path / "other", peers)


async def test_a_log_that_has_no_witnesses_any_more_leaves_nothing_that_they_saw(tmp_path, peers):
    folder = tmp_path / "log"
    log = await unheld(folder, peers)
    await fill(log, 3)
    await log.close()
    assert (folder / "cosigned").exists()
    log = await Log.open(folder, origin=ORIGIN, key=KEY)
    await fill(log, 3)
    await log.close()
    assert not (folder / "cosigned").exists()
    assert read_cosigned(folder, VERIFIER).size == 6
