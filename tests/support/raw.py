"""Bytes on a socket, exactly as they are given: for what no HTTP client would send."""

import contextlib
import re
import socket
import time

APART_S = 0.03

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def connect(port: int, timeout_s: float = 10) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    connection.settimeout(timeout_s)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the server ends the connection; fail if it does not."""
    received = bytearray()
    # What the server had not read when it closed turns its goodbye into a reset.
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)


def exchange(port: int, *parts: bytes) -> tuple[list[int], bytes]:
    """Send `parts`; return the status of each response and all bytes, once the server has closed.

    Between two of them there is time to look at the one before.
    """
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # It may be refused before all of it was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for number, part in enumerate(parts):
                if number:
                    time.sleep(APART_S)
                connection.sendall(part)
        received = read_to_end(connection)
    return [int(status) for status in STATUS.findall(received)], received
