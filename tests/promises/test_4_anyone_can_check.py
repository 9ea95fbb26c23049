"""Promise 4: records form a public-format transparency log that outsiders can check.

The verifier, here and in `support.outsider`, is written from the specifications alone (C2SP
tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature and tlog-witness, RFC 6962 and RFC 9162) and
uses no code of `audit`. Seen to fail: with 0x00 left out of `leaf_hash`, or a little-endian length in
`bundle_entries`, it finds no valid log; with a sibling too few in `Log.consistency_proof`, the witness
refuses the gateway.
"""

import base64
import hashlib
import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from support import GatewayProcess, call, make_site, publish_linear
from support.outsider import fetch, mth, open_checkpoint, path, read_log
from support.sites import ROW


def test_an_outsider_verifies_the_log_from_its_published_formats(gateway):
    verifier = gateway.site.log_verifier("gateway-1")
    seen = []
    for count in (40, 216, 44):
        for _ in range(count):
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
        note = fetch(f"{gateway.url}/checkpoint")
        seen.append(open_checkpoint(note, "clinic/gateway-1", verifier.key.public_bytes_raw()))
        # The tiles of the edge as it is: 40 wide, complete, and 44 wide behind a complete one.
        last = read_log(gateway.url, seen[-1][0])
    assert [size for size, _ in seen] == [40, 256, 300]
    size, root = seen[-1]
    entries, hashes = read_log(gateway.url, size)
    assert [hashlib.sha256(b"\x00" + entry).digest() for entry in entries] == hashes
    assert mth(hashes) == root
    assert last == (entries, hashes)
    # What was signed earlier is a beginning of what is signed now, and its tiles can still be had.
    for earlier, signed in seen:
        assert mth(hashes[:earlier]) == signed
        assert read_log(gateway.url, earlier) == (entries[:earlier], hashes[:earlier])
    assert fetch(f"{gateway.url}/{path('1', 0, 1)}") == mth(hashes[:256])
    assert json.loads(entries[0])["policies"] == ["hipaa-treatment"]
    with pytest.raises(InvalidSignature):
        open_checkpoint(
            note.replace(b"\n300\n", b"\n301\n"), "clinic/gateway-1", verifier.key.public_bytes_raw()
        )


def hash_children(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_consistency(first, second, first_root, second_root, proof):
    """RFC 9162 section 2.1.4.2, as it is written there."""
    assert 0 < first < second
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        assert sn != 0
        if fn & 1 or fn == sn:
            fr, sr = hash_children(c, fr), hash_children(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = hash_children(sr, c)
        fn, sn = fn >> 1, sn >> 1
    assert (fr, sr, sn) == (first_root, second_root, 0)


class Witness(BaseHTTPRequestHandler):
    """A second party's witness (C2SP tlog-witness), which trusts nothing that it did not check."""

    name, private = "auditor.example/outsider", Ed25519PrivateKey.generate()
    log_key: bytes
    seen: ClassVar[list[tuple[int, bytes]]] = []
    problems: ClassVar[list[Exception]] = []

    def do_POST(self):
        try:
            status, body = self.answer(self.rfile.read(int(self.headers["Content-Length"])))
        except Exception as error:  # noqa: BLE001 raised again where the test can see it
            self.problems.append(error)
            status, body = 422, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, request):
        head, _, note = request.partition(b"\n\n")
        old, *proof = head.decode().split("\n")
        size, root = open_checkpoint(note, "clinic/gateway-1", self.log_key)
        known, known_root = self.seen[-1] if self.seen else (0, b"")
        if int(old.removeprefix("old ")) != known:
            return 409, b"%d\n" % known
        if 0 < known < size:
            decoded = [base64.b64decode(line, validate=True) for line in proof]
            verify_consistency(known, size, known_root, root, decoded)
        self.seen.append((size, root))
        text = note.partition(b"\n\n")[0] + b"\n"
        moment = int(time.time())
        signature = self.private.sign(b"cosignature/v1\ntime %d\n" % moment + text)
        signed = self.key_id() + struct.pack(">Q", moment) + signature
        line = f"\u2014 {self.name} {base64.b64encode(signed).decode()}\n"
        return 200, line.encode()

    @classmethod
    def public(cls):
        return cls.private.public_key().public_bytes_raw()

    @classmethod
    def key_id(cls):
        return hashlib.sha256(cls.name.encode() + b"\n\x04" + cls.public()).digest()[:4]

    @classmethod
    def key(cls):
        encoded = base64.b64encode(b"\x04" + cls.public()).decode()
        return f"{cls.name}+{cls.key_id().hex()}+{encoded}"

    def log_message(self, *_):
        """Say nothing."""


def verify_cosignature(note, name, key):
    """C2SP tlog-cosignature, `cosignature/v1`; returns the time that was signed."""
    text, _, signatures = note.decode().partition("\n\n")
    key_id = hashlib.sha256(name.encode() + b"\n\x04" + key).digest()[:4]
    for line in signatures.splitlines():
        _, signer, encoded = line.split(" ")
        raw = base64.b64decode(encoded)
        if signer == name and raw[:4] == key_id:
            (moment,) = struct.unpack(">Q", raw[4:12])
            message = f"cosignature/v1\ntime {moment}\n{text}\n".encode()
            Ed25519PublicKey.from_public_bytes(key).verify(raw[12:], message)
            return moment
    raise AssertionError("not cosigned")


@pytest.fixture
def witness():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Witness)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_outsiders_witness_accepts_the_proofs_and_its_cosignature_is_published(tmp_path, witness):
    members = {"witnesses": {"interval_s": 0.05, "members": [{"url": witness, "key": Witness.key()}]}}
    site = make_site(tmp_path, audit=members)
    publish_linear(site, tmp_path)
    Witness.log_key = site.log_verifier("gateway-1").key.public_bytes_raw()
    sizes = []
    with GatewayProcess(site, tmp_path) as gateway:
        # Whole subtrees and ragged edges: each count is proved to extend the one before.
        for count in (1, 2, 4, 5, 116, 128, 3):
            for _ in range(count):
                assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
            wanted = sum(sizes[-1:]) + count
            size, note = 0, b""
            while size < wanted:
                assert Witness.problems == []
                reply = call("GET", f"{gateway.url}/checkpoint")
                if reply.status == 200:
                    note = reply.body
                    size, _ = open_checkpoint(note, "clinic/gateway-1", Witness.log_key)
            sizes.append(size)
            signed = verify_cosignature(note, Witness.name, Witness.public())
            assert abs(time.time() - signed) < 600
    assert sizes == [1, 3, 7, 12, 128, 256, 259]
    assert {size for size, _ in Witness.seen} >= set(sizes)
    assert Witness.problems == []
    forged = note.replace(b"\n259\n", b"\n260\n")
    with pytest.raises(InvalidSignature):
        verify_cosignature(forged, Witness.name, Witness.public())


def test_what_is_not_there_or_not_a_tile_is_not_served(gateway):
    call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
    for name in ("0/001", "0/000.p/2", "entries/000", "0/../../keys/issuer.pem", "9/000"):
        assert call("GET", f"{gateway.url}/tile/{name}").status == 404
    assert call("POST", f"{gateway.url}/checkpoint").status == 405
