"""Takes connections from a listening socket, as many in a turn of the event loop as there are.

libuv takes one in each turn. Under load a turn lasts tens of milliseconds, so a thousand callers who
come at once would wait for their turn to be heard at all: up to 2.7 s were measured, of which the
gateway itself knows nothing.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

# As many as are handled in some milliseconds.
AT_ONCE: Final = 128
PAUSE_S: Final = 1.0
HANDSHAKE_S: Final = 10.0

# Of these a turn brings no cure: files are closed or memory is freed when requests end.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

logger = logging.getLogger(__name__)


class Acceptor:
    """Accepts on one listening socket until it is closed; stands for a server of asyncio's.

    With `tls`, a connection reaches its protocol once it is sealed, and one that is not within 10 s
    is closed.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # A turn takes what is there and goes on: the call after the last must not wait for the next.
        listener.setblocking(False)
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more; what was accepted goes on."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait until what was accepted is in the hands of its protocol."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                # It hung up while it waited.
                continue
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(error)
                return
            connection.setblocking(False)
            opening = self._loop.create_task(self._open(connection), name="accept")
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_S,
            )
        except OSError as error:
            logger.info("a connection was lost while it was opened: %s", error)
            connection.close()

    def _pause(self, error: OSError) -> None:
        """Leave the others with the kernel for a while, instead of failing on them in every turn."""
        logger.error("no connection is accepted for %.0f s: %s", PAUSE_S, error)
        self._loop.remove_reader(self._listener)
        self._paused = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener, self._accept)
