"""Bytes on a socket, exactly as they are given: for what no HTTP client would send."""

import contextlib
import re
import socket

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


def exchange(port: int, data: bytes) -> tuple[list[int], bytes]:
    """Send `data`; return the status of each response and all bytes, once the server has closed."""
    with connect(port) as connection:
        # It may be refused before all of it was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        received = read_to_end(connection)
    return [int(status) for status in STATUS.findall(received)], received
