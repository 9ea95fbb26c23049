"""Sealed values: published vectors of the format, and everything that must not open."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_gateway.sealing import OVERHEAD_BYTES, ExtendedKey, SealBroken, Sealer

SECRET = bytes(range(32))
NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "associated", "expected"),
    [
        # C2SP xaes-256-gcm, test vectors 1 and 2: between them the subkey has its top bit set and not.
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (
            b"\x03" * 32,
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ],
)
def test_agrees_with_the_published_vectors(key, associated, expected):
    extended = ExtendedKey(key)
    sealed = extended.encrypt(NONCE, b"XAES-256-GCM", associated)
    assert sealed.hex() == expected
    assert extended.decrypt(NONCE, sealed, associated) == b"XAES-256-GCM"


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_what_is_sealed_opens(content, associated):
    sealer = Sealer(SECRET, "cache")
    sealed = sealer.seal(content, associated)
    assert len(sealed) == len(content) + OVERHEAD_BYTES
    assert Sealer(SECRET, "cache").open(sealed, associated) == content


def test_the_same_content_never_looks_the_same():
    sealer = Sealer(SECRET, "cache")
    assert len({sealer.seal(b"content", b"") for _ in range(100)}) == 100


def test_no_changed_byte_opens():
    sealer = Sealer(SECRET, "cache")
    sealed = sealer.seal(b"some content", b"place")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealBroken):
            sealer.open(bytes(changed), b"place")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:length], b"place")


def test_it_opens_only_where_it_belongs_and_with_its_own_key():
    sealed = Sealer(SECRET, "cache").seal(b"some content", b"place")
    for other in (Sealer(SECRET, "work"), Sealer(hashlib.sha256(SECRET).digest(), "cache")):
        with pytest.raises(SealBroken):
            other.open(sealed, b"place")
    with pytest.raises(SealBroken):
        Sealer(SECRET, "cache").open(sealed, b"another place")
