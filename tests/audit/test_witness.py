"""A witness cosigns what extends all it cosigned before, and nothing else; C2SP tlog-witness.

Seen to fail: without `keep_contradiction` the split view leaves no proof; without the comparison in
`WitnessMemory.advance` a smaller checkpoint rolls the memory back; without `verify_consistency` a
forked log is cosigned.
"""

import base64
import threading

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import NoteSigner
from audit.checkpoint import sign_checkpoint
from audit.cosignature import Cosigner, cosignatures_of
from audit.errors import WitnessUnavailable
from audit.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from audit.witness import Witness, WitnessMemory, serve_witness
from audit.witness.memory import Seen

SIGNER = NoteSigner("clinic/gateway-1", Ed25519PrivateKey.generate())
COSIGNER = Cosigner("auditor.example/w1", Ed25519PrivateKey.generate())


class History:
    """A log's tree, and the requests that bring its checkpoints to a witness."""

    def __init__(self, *leaves, signer=SIGNER):
        self.nodes = {}
        self.roots = [EMPTY_ROOT]
        self.signer = signer
        frontier = Frontier(lambda level, index, hash_: self.nodes.__setitem__((level, index), hash_))
        for leaf in leaves:
            frontier.append(leaf_hash(leaf))
            self.roots.append(frontier.root())

    def note(self, size):
        return sign_checkpoint(self.signer, size, self.roots[size]).note

    def request(self, old, size, *, proof=None, note=None):
        if proof is None:
            proof = consistency_proof(old, size, lambda *at: self.nodes[at]) if 0 < old < size else []
        lines = [f"old {old}", *(base64.b64encode(hash_).decode() for hash_ in proof), "", ""]
        return "\n".join(lines).encode() + (note or self.note(size))


LEAVES = [b"leaf %d" % n for n in range(40)]
LOG = History(*LEAVES)
FORK = History(*LEAVES[:20], b"another", *LEAVES[21:])


@pytest.fixture
def memory(tmp_path):
    memory = WitnessMemory(tmp_path / "memory.sqlite", create=True)
    yield memory
    memory.close()


@pytest.fixture
def witness(memory):
    return Witness(COSIGNER, [SIGNER.verifier], memory, clock=lambda: 1000.7)


def size_of(memory):
    return memory.seen(SIGNER.verifier.name).size


def test_what_extends_is_cosigned_and_remembered(witness, memory):
    for old, size in [(0, 0), (0, 7), (7, 7), (7, 8), (8, 40)]:
        answer = witness.add_checkpoint(LOG.request(old, size))
        assert answer.status == 200, answer
        (found,) = cosignatures_of(LOG.note(size) + answer.body.encode(), [COSIGNER.key])
        assert found.time == 1000
        assert memory.logs() == [(SIGNER.verifier.name, Seen(size, LOG.roots[size], 1000))]


def test_an_old_checkpoint_replayed_changes_nothing(witness, memory):
    witness.add_checkpoint(LOG.request(0, 30))
    for old, size in [(0, 10), (0, 30), (10, 30), (10, 10), (29, 40), (40, 40)]:
        answer = witness.add_checkpoint(LOG.request(old, size))
        assert (answer.status, answer.body) == (409, "30\n"), (old, size)
        assert answer.content_type == "text/x.tlog.size"
    assert size_of(memory) == 30


def test_an_old_size_beyond_the_checkpoint_is_malformed(witness):
    witness.add_checkpoint(LOG.request(0, 30))
    assert witness.add_checkpoint(LOG.request(30, 20, proof=[])).status == 400


def test_a_fork_is_refused_whatever_proof_comes_with_it(witness, memory):
    witness.add_checkpoint(LOG.request(0, 30))
    honest = consistency_proof(30, 35, lambda *at: LOG.nodes[at])
    for proof in (None, honest, [], [*honest, honest[0]], honest[::-1]):
        assert witness.add_checkpoint(FORK.request(30, 35, proof=proof)).status == 422
    assert memory.contradictions() == []
    assert witness.add_checkpoint(FORK.request(30, 30)).status == 409
    assert witness.add_checkpoint(FORK.request(0, 30)).status == 409
    assert size_of(memory) == 30
    (found,) = memory.contradictions()
    assert (found.size, found.held, found.refused) == (30, LOG.note(30), FORK.note(30))


def test_a_proof_where_there_is_nothing_to_prove_is_refused(witness, memory):
    assert witness.add_checkpoint(LOG.request(0, 30, proof=[bytes(32)])).status == 422
    witness.add_checkpoint(LOG.request(0, 30))
    assert witness.add_checkpoint(LOG.request(30, 30, proof=[bytes(32)])).status == 422
    assert size_of(memory) == 30


def test_strangers_and_forgers_are_told_apart_and_refused(witness, memory):
    stranger = History(*LEAVES, signer=NoteSigner("elsewhere/log", Ed25519PrivateKey.generate()))
    assert witness.add_checkpoint(stranger.request(0, 30)).status == 404
    forger = History(*LEAVES, signer=NoteSigner(SIGNER.verifier.name, Ed25519PrivateKey.generate()))
    assert witness.add_checkpoint(forger.request(0, 30)).status == 403
    changed = LOG.note(30).replace(b"\n30\n", b"\n31\n")
    assert witness.add_checkpoint(LOG.request(0, 30, note=changed)).status == 403
    assert memory.logs() == []


GOOD = LOG.request(0, 30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"\n" + GOOD,
        GOOD.replace(b"old 0", b"old 00"),
        GOOD.replace(b"old 0", b"old -1"),
        GOOD.replace(b"old 0", b"old 0 "),
        GOOD.replace(b"old 0", b"old \xd9\xa1"),
        GOOD.replace(b"old 0\n", b"old 0\r\n"),
        GOOD.replace(b"old 0\n", b"old 0\nAAAA\n"),
        GOOD.replace(b"old 0\n", b"old 0\n!!!!\n"),
        GOOD.replace(b"old 0\n", b"old 0\n" + (b"A" * 43 + b"=\n") * 64),
        GOOD[:-1],
        GOOD.partition(b"\n\n")[0] + b"\n\n",
    ],
)
def test_what_is_no_request_is_malformed(witness, memory, body):
    assert witness.add_checkpoint(body).status == 400
    assert memory.logs() == []


def test_a_clock_that_steps_back_makes_no_earlier_statement(memory):
    times = iter([5000.0, 200.0])
    witness = Witness(COSIGNER, [SIGNER.verifier], memory, clock=lambda: next(times))
    for old, size in [(0, 3), (3, 9)]:
        answer = witness.add_checkpoint(LOG.request(old, size))
        (found,) = cosignatures_of(LOG.note(size) + answer.body.encode(), [COSIGNER.key])
        assert found.time == 5000


def test_two_requests_at_once_never_take_the_memory_back(witness, memory, tmp_path):
    """The race of the specification: a smaller checkpoint, checked first, is stored last."""
    witness.add_checkpoint(LOG.request(0, 5))
    last = memory.seen(SIGNER.verifier.name)
    overtaken, statuses = threading.Barrier(8), []

    def bring(size):
        own = WitnessMemory(tmp_path / "memory.sqlite", create=False)
        try:
            overtaken.wait()
            answer = Witness(COSIGNER, [SIGNER.verifier], own).add_checkpoint(LOG.request(5, size))
            statuses.append((answer.status, size))
        finally:
            own.close()

    threads = [threading.Thread(target=bring, args=(size,)) for size in range(6, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, winner),) = [pair for pair in statuses if pair[0] == 200]
    assert len(statuses) == 8
    assert size_of(memory) == winner
    from audit import open_checkpoint

    stale = open_checkpoint(LOG.note(6), [SIGNER.verifier])
    assert not memory.advance(last, stale, 1)
    assert size_of(memory) == winner


def test_a_memory_that_was_lost_is_not_begun_anew(tmp_path, memory):
    with pytest.raises(WitnessUnavailable, match="retire the witness's key"):
        WitnessMemory(tmp_path / "gone.sqlite", create=False)
    (tmp_path / "broken.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(WitnessUnavailable, match="cannot be opened"):
        WitnessMemory(tmp_path / "broken.sqlite", create=False)


async def test_over_http_nothing_is_cosigned_that_cannot_be_remembered(witness, memory):
    transport = httpx.ASGITransport(app=serve_witness(witness))
    async with httpx.AsyncClient(transport=transport, base_url="http://witness") as client:
        assert (await client.post("/add-checkpoint", content=LOG.request(0, 5))).status_code == 200
        huge = LOG.request(5, 9) + b"x" * 100_000
        assert (await client.post("/add-checkpoint", content=huge)).status_code == 413
        assert (await client.get("/add-checkpoint")).status_code == 405
        assert (await client.post("/")).status_code == 404
        memory._database.execute("PRAGMA query_only = ON")
        reply = await client.post("/add-checkpoint", content=LOG.request(5, 9))
        assert reply.status_code == 503
        assert "\u2014" not in reply.text
        memory._database.execute("PRAGMA query_only = OFF")
        reply = await client.post("/add-checkpoint", content=LOG.request(0, 9))
        assert (reply.status_code, reply.text) == (409, "5\n")
        assert reply.headers["content-type"] == "text/x.tlog.size"
