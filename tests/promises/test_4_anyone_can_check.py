"""Promise 4: records form a public-format transparency log that outsiders can check.

The verifier below is written from the specifications alone (C2SP tlog-tiles, tlog-checkpoint and
signed-note, RFC 6962) and uses no code of `audit`. Seen to fail: with 0x00 left out of `leaf_hash`,
or a little-endian length in `bundle_entries`, it finds no valid log.
"""

import base64
import hashlib
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from support import call
from support.sites import ROW


def fetch(url):
    reply = call("GET", url)
    assert reply.status == 200, url
    return reply.body


def open_checkpoint(note: bytes, name: str, key: bytes):
    text, _, signatures = note.decode().partition("\n\n")
    text += "\n"
    key_id = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
    for line in signatures.splitlines():
        _, signer, encoded = line.split(" ")
        raw = base64.b64decode(encoded)
        if signer == name and raw[:4] == key_id:
            Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], text.encode())
            origin, size, root = text.splitlines()[:3]
            assert origin == name
            return int(size), base64.b64decode(root)
    raise AssertionError("not signed")


def path(kind, number, width):
    digits = f"{number:03}"
    while len(digits) % 3:
        digits = f"0{digits}"
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{g}" for g in groups[:-1]), groups[-1]])
    return f"tile/{kind}/{name}" + (f".p/{width}" if width < 256 else "")


def read_log(url, size):
    entries, hashes = [], []
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        bundle = fetch(f"{url}/{path('entries', number, width)}")
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        tile = fetch(f"{url}/{path('0', number, width)}")
        hashes += [tile[i : i + 32] for i in range(0, len(tile), 32)]
    return entries, hashes


def mth(hashes):
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


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


def test_what_is_not_there_or_not_a_tile_is_not_served(gateway):
    call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
    for name in ("0/001", "0/000.p/2", "entries/000", "0/../../keys/issuer.pem", "9/000"):
        assert call("GET", f"{gateway.url}/tile/{name}").status == 404
    assert call("POST", f"{gateway.url}/checkpoint").status == 405
