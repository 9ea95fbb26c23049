"""Reads a log as its published formats say (C2SP, RFC 6962), with no code of `audit`."""

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from support.http import call


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


def read_log(url, size, minimum=0):
    """Return the entries from `minimum` (a multiple of 256) on, and all hashes."""
    entries, hashes = [], []
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        bundle = b""
        if number >= minimum // 256:
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
