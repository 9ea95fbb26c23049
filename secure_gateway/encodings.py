"""Compressed bodies: `Content-Encoding` of what comes in, `Accept-Encoding` for what goes out.

gzip (RFC 1952) and deflate, which is the zlib format (RFC 9110 section 8.4.1.2); some clients send raw
deflate data under that name, and are understood too. A body is expanded no further than the gateway's
limit for bodies, however small it came.
"""

import asyncio
import re
import zlib
from typing import Final

from audit.records import Problem
from secure_gateway.errors import Refusal

GZIP: Final = b"gzip"
DEFLATE: Final = b"deflate"
CODINGS: Final = (GZIP, DEFLATE)

# Smaller answers fit in one packet either way.
COMPRESSED_FROM_BYTES: Final = 1024
# A thread costs about 60 us; 4 KiB expand to 4 MiB at most, and 64 KiB are compressed in about 1 ms.
EXPANDED_INLINE_BYTES: Final = 4 * 1024
COMPRESSED_INLINE_BYTES: Final = 64 * 1024
# Numbers hardly get smaller at higher levels, and those take several times as long.
LEVEL: Final = 1

_GZIP_WINDOW: Final = 31
_ZLIB_WINDOW: Final = 15
_RAW_WINDOW: Final = -15
_ALIASES: Final = {b"x-gzip": GZIP}
_QUALITY: Final = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def coding_of(content_encoding: bytes) -> bytes | None:
    """Return the coding that a body came in, None for none.

    Raises:
        Refusal: encoding-unsupported, also for several codings on top of each other.
    """
    name = content_encoding.strip().lower()
    name = _ALIASES.get(name, name)
    if name in {b"", b"identity"}:
        return None
    if name not in CODINGS:
        raise Refusal(
            Problem.ENCODING_UNSUPPORTED,
            "Content-Encoding must be one of gzip, deflate and identity.",
        )
    return name


async def plain(body: bytes, content_encoding: bytes, limit_bytes: int) -> bytes:
    """Return what a body holds that came with this Content-Encoding.

    Raises:
        Refusal: encoding-unsupported, body-too-large past `limit_bytes`, body-malformed if it is not of
            that coding.
    """
    coding = coding_of(content_encoding)
    return body if coding is None else await expanded(body, coding, limit_bytes)


async def expanded(body: bytes, coding: bytes, limit_bytes: int) -> bytes:
    """Return what `body` holds; a large one is expanded in a thread.

    Raises:
        Refusal: body-too-large past `limit_bytes`, body-malformed if it is not of that coding.
    """
    if len(body) <= EXPANDED_INLINE_BYTES:
        return expand(body, coding, limit_bytes)
    return await asyncio.to_thread(expand, body, coding, limit_bytes)


def expand(body: bytes, coding: bytes, limit_bytes: int) -> bytes:
    """Return what `body` holds, as `expanded`; blocking."""
    window = _GZIP_WINDOW
    if coding == DEFLATE:
        window = _ZLIB_WINDOW if _has_zlib_header(body) else _RAW_WINDOW
    parts: list[bytes] = []
    room = limit_bytes + 1
    rest = body
    try:
        while rest:
            inflater = zlib.decompressobj(window)
            part = inflater.decompress(rest, room)
            parts.append(part)
            room -= len(part)
            if room <= 0:
                raise Refusal(
                    Problem.BODY_TOO_LARGE,
                    f"The body is larger than this gateway's limit of {limit_bytes} bytes.",
                )
            if not inflater.eof:
                raise _malformed()
            # A gzip file may have several members (RFC 1952 section 2.2); deflate data ends here.
            rest = inflater.unused_data
            if rest and coding == DEFLATE:
                raise _malformed()
    except zlib.error as error:
        raise _malformed() from error
    return b"".join(parts)


def chosen(accept_encoding: bytes) -> bytes | None:
    """Return the coding that an answer goes out in, None for none (RFC 9110 section 12.5.3).

    Of those that the caller accepts the one of the highest weight is taken, gzip before deflate.
    """
    weights: dict[bytes, float] = {}
    for item in accept_encoding.split(b","):
        name, *parameters = (part.strip() for part in item.split(b";"))
        weight = 1.0
        for parameter in parameters:
            quality = _QUALITY.fullmatch(parameter)
            # What is no weight asks for nothing that could be given.
            weight = float(quality[1]) if quality else 0.0
        name = name.lower()
        weights[_ALIASES.get(name, name)] = weight
    anything = weights.get(b"*", 0.0)
    best = max(CODINGS, key=lambda coding: weights.get(coding, anything))
    weight = weights.get(best, anything)
    return best if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


async def compressed(body: bytes, coding: bytes) -> bytes:
    """Return `body` in `coding`; a large one is compressed in a thread."""
    if len(body) <= COMPRESSED_INLINE_BYTES:
        return compress(body, coding)
    return await asyncio.to_thread(compress, body, coding)


def compress(body: bytes, coding: bytes) -> bytes:
    """Return `body` in `coding`; blocking."""
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW if coding == GZIP else _ZLIB_WINDOW)
    return deflater.compress(body) + deflater.flush()


def _has_zlib_header(body: bytes) -> bool:
    # RFC 1950 section 2.2: the method, and a check over the first two bytes.
    return len(body) > 1 and body[0] & 15 == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0


def _malformed() -> Refusal:
    return Refusal(Problem.BODY_MALFORMED, "The body is not what its Content-Encoding says.")
