"""HTTP/2 by hand (RFC 9113, 7541), for what no gRPC client would send."""

import socket
import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers_of(path: bytes, *more: Header) -> list[Header]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


def exchange(
    address: str, headers: Iterable[Header], body: bytes = b"", timeout_s: float = 10
) -> bytes:
    """Send one request and return what comes back, up to its trailers or the end of the connection."""
    host, _, port = address.rpartition(":")
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
    message = b"\x00" + struct.pack(">I", len(body)) + body
    received = b""
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        connection.sendall(
            PREFACE
            + frame(SETTINGS, 0, 0, b"")
            + frame(HEADERS, END_HEADERS, 1, block)
            + frame(DATA, END_STREAM, 1, message)
        )
        while b"grpc-status" not in received:
            more = connection.recv(65536)
            if not more:
                break
            received += more
    return received


def _text(value: bytes) -> bytes:
    # A string literal without Huffman coding; its length is an integer with a prefix of 7 bits.
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value
