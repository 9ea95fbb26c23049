"""Compressed bodies: what is understood, how far it is expanded, how an answer goes out."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.records import Problem
from secure_gateway.encodings import (
    CODINGS,
    DEFLATE,
    EXPANDED_INLINE_BYTES,
    GZIP,
    chosen,
    coding_of,
    compress,
    compressed,
    expand,
    expanded,
)
from secure_gateway.errors import Refusal

LIMIT = 1 << 20


def raw_deflate(body):
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(body) + deflater.flush()


@given(st.binary(max_size=4096), st.sampled_from(CODINGS))
def test_what_is_compressed_is_expanded_to_the_same(body, coding):
    assert expand(compress(body, coding), coding, LIMIT) == body


@given(st.binary(max_size=4096))
def test_other_writers_are_understood(body):
    assert expand(gzip.compress(body), GZIP, LIMIT) == body
    assert expand(gzip.compress(body[:7]) + gzip.compress(body[7:]), GZIP, LIMIT) == body
    assert expand(zlib.compress(body), DEFLATE, LIMIT) == body
    assert zlib.decompress(compress(body, DEFLATE)) == gzip.decompress(compress(body, GZIP)) == body


def test_raw_deflate_data_is_understood():
    assert expand(raw_deflate(b"tensor" * 9), DEFLATE, LIMIT) == b"tensor" * 9


@given(st.binary(max_size=300), st.sampled_from(CODINGS))
def test_anything_else_is_malformed_and_nothing_worse(body, coding):
    problem = None
    try:
        expand(body, coding, LIMIT)
    except Refusal as refusal:
        problem = refusal.problem
    assert problem in (None, Problem.BODY_MALFORMED)


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_body_that_ends_early_is_malformed(cut):
    for coding, body in ((GZIP, gzip.compress(b"x" * 99)), (DEFLATE, zlib.compress(b"x" * 99))):
        with pytest.raises(Refusal) as caught:
            expand(body[:-cut], coding, LIMIT)
        assert caught.value.problem is Problem.BODY_MALFORMED
    with pytest.raises(Refusal):
        expand(zlib.compress(b"x") + b"more", DEFLATE, LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_exact(coding):
    assert len(expand(compress(b"x" * LIMIT, coding), coding, LIMIT)) == LIMIT
    with pytest.raises(Refusal) as caught:
        expand(compress(b"x" * (LIMIT + 1), coding), coding, LIMIT)
    assert caught.value.problem is Problem.BODY_TOO_LARGE


def test_a_bomb_is_refused_without_being_expanded():
    member = gzip.compress(bytes(64 << 20), 9)
    for bomb in (member, gzip.compress(bytes(LIMIT // 2)) * 100):
        tracemalloc.start()
        with pytest.raises(Refusal) as caught:
            expand(bomb, GZIP, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert caught.value.problem is Problem.BODY_TOO_LARGE
        assert peak < 4 * LIMIT


async def test_large_bodies_take_the_same_way_in_a_thread():
    body = bytes(range(256)) * 1024
    for coding in CODINGS:
        packed = await compressed(body, coding)
        padded = packed if len(packed) > EXPANDED_INLINE_BYTES else gzip.compress(body, 0)
        assert await expanded(padded, coding if padded is packed else GZIP, LIMIT) == body


@pytest.mark.parametrize(
    ("header", "coding"),
    [(b"gzip", GZIP), (b" GZip ", GZIP), (b"x-gzip", GZIP), (b"deflate", DEFLATE), (b"identity", None)],
)
def test_codings_that_are_understood(header, coding):
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", [b"br", b"zstd", b"gzip, gzip", b"gzip;q=1", b"\xff"])
def test_codings_that_are_not(header):
    with pytest.raises(Refusal) as caught:
        coding_of(header)
    assert caught.value.problem is Problem.ENCODING_UNSUPPORTED


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"gzip", GZIP),
        (b"deflate", DEFLATE),
        (b"gzip, deflate, br", GZIP),
        (b"deflate, gzip;q=0.5", DEFLATE),
        (b"deflate;q=0.2, gzip;q=0.3, identity;q=0.1", GZIP),
        (b"*", GZIP),
        (b"gzip;q=0, *", DEFLATE),
        (b"GZIP;Q=1.0", GZIP),
        (b"x-gzip", GZIP),
        (b"identity", None),
        (b"gzip;q=0", None),
        (b"gzip;q=0.2, identity;q=0.9", None),
        (b"*;q=0", None),
        (b"br", None),
        (b"", None),
        (b"gzip;q=2", None),
        (b"gzip;level=9", None),
        (b",,;,=", None),
    ],
)
def test_the_coding_of_an_answer_is_the_callers_to_choose(header, coding):
    assert chosen(header) == coding
