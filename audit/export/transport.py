"""Carries syslog messages over TCP (RFC 6587) or TLS (RFC 5425), and knows when they arrived.

Syslog has no acknowledgement: what a socket took is lost with a receiver that dies, and the sender
never knows. So each batch has a connection of its own, which the sender ends; the batch counts as taken
once the receiver, having read up to that end, ends its side too. One that dies with anything unread
answers with a reset instead, and so does one that had hung up before: then the batch is sent again.
"""

import array
import asyncio
import contextlib
import fcntl
import socket
import ssl
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from audit.export.syslog import SyslogFormat
from audit.follow import DeliveryFailed, Entry

_DRAIN_BYTES: Final = 4096
_LOOK_S: Final = 0.005


def tls_context(
    ca: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return what verifies a receiver by `ca` (default: the machine's authorities) and its name.

    Raises:
        OSError: if a file cannot be read or holds no certificate or key.
    """
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


class SyslogSender:
    """Sends batches to one receiver, one connection each."""

    def __init__(
        self,
        host: str,
        port: int,
        form: SyslogFormat,
        *,
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        self._host = host
        self._port = port
        self._form = form
        self._tls = tls
        self._timeout_s = timeout_s
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    async def __call__(self, entries: Sequence[Entry]) -> int:
        """Send `entries`; a receiver of syslog refuses none of them for good.

        Raises:
            DeliveryFailed: if the receiver did not take all of them.
        """
        await asyncio.to_thread(self._send, self._form.frame(entries))
        return 0

    async def close(self) -> None:
        """End what is being sent, so that its thread ends too."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._connection() as plain:
                if self._tls is None:
                    plain.sendall(data)
                    plain.shutdown(socket.SHUT_WR)
                    _await_end(plain, deadline)
                    _await_acknowledged(plain, deadline)
                    return
                with self._tls.wrap_socket(plain, server_hostname=self._host) as sealed:
                    sealed.sendall(data)
                    # Many receivers end TCP without ending TLS first: that is an end as good.
                    with contextlib.suppress(ssl.SSLEOFError):
                        sealed.unwrap()
                    _await_acknowledged(sealed, deadline)
        except OSError as error:
            raise DeliveryFailed(f"the syslog receiver did not take it ({_kind(error)})") from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        connection = socket.create_connection((self._host, self._port), self._timeout_s)
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _await_end(connection: socket.socket, deadline: float) -> None:
    """Read until the receiver ends its side; it has nothing to say before."""
    while connection.recv(_DRAIN_BYTES):
        if time.monotonic() > deadline:
            raise TimeoutError


def _await_acknowledged(connection: socket.socket, deadline: float) -> None:
    """Wait until the receiver's machine has acknowledged every byte.

    One that hung up before they came never does: its end of the stream alone proves nothing.
    """
    waiting = array.array("i", [0])
    while True:
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "reset")
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, waiting)
        if not waiting[0]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        # The kernel tells nobody when the queue empties: it has to be looked at again.
        time.sleep(_LOOK_S)


def _kind(error: OSError) -> str:
    """Return what went wrong without what the other side said."""
    return error.strerror or "" if type(error) is OSError else type(error).__name__
