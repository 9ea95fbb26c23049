"""Serves an ASGI application on a socket until it is told to stop: what every component needs."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn

from bedside.accept import Acceptor
from bedside.held import HeldConnections
from bedside.http_deadline import UNREAD_TIMEOUT_S
from bedside.http_known import KnownHeadProtocol, KnownHeads
from bedside.http_protocol import Threshold
from bedside.shifts import Shifts

GRACE_S: Final = 10
# How long callers whose connection is open may still ask once the server has been told to stop.
LAST_ANSWERS_S: Final = 0.2
FRAME_LIMIT_BYTES: Final = 16 * 1024 * 1024

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


# Allocations of containers before the youngest are looked through; requests free theirs by themselves.
COLLECT_AFTER: Final = 20_000


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, many connections at once."""
        named: dict[str, Any] = {
            "config": self.config,
            "server_state": self.server_state,
            "app_state": {},
        }
        protocol = partial(self.config.http_protocol_class, **named)
        tls = self.config.ssl
        acceptors: Any = [Acceptor(listener, protocol, tls=tls) for listener in sockets or ()]
        self.servers = acceptors
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this process."""
        yield


async def serve_http(
    app: Application,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    *,
    websockets: bool = False,
    draining: Callable[[], Awaitable[None]] | None = None,
    threshold: Threshold | None = None,
    held: HeldConnections | None = None,
    shifts: Shifts | None = None,
    unread_timeout_s: float = UNREAD_TIMEOUT_S,
    tls: tuple[Path, Path] | None = None,
) -> None:
    """Serve `app` on a listening socket until `stop` is set, then finish what is under way.

    That may take 10 s at the most.

    `ready` is called once requests are accepted; `draining` is awaited first when stopping, to end
    what would never end by itself. `threshold` refuses requests by their head, and `held` is where the
    connections of those wait that go on asking; `shifts` says which are read from in a crowd. Who does
    not read its answer for `unread_timeout_s` is cut off. `tls` is a certificate chain and its key, PEM
    files.
    """
    protocol: Any = partial(
        KnownHeadProtocol,
        threshold=threshold,
        held=held,
        shifts=shifts,
        stop=stop,
        unread_timeout_s=unread_timeout_s,
        heads=KnownHeads(),
    )
    server = _Server(
        uvicorn.Config(
            app,
            http=protocol,
            interface="asgi3",
            ws="websockets-sansio" if websockets else "none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            # Nobody's word is taken for where a request came from.
            proxy_headers=False,
            ws_max_size=FRAME_LIMIT_BYTES,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=None if tls is None else str(tls[0]),
            ssl_keyfile=None if tls is None else str(tls[1]),
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    _spare_the_collector()
    try:
        ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if draining is not None:
            await draining()
        try:
            for unread in (shifts, held):
                if unread is not None:
                    unread.end()
            if server.server_state.connections:
                # What callers are sending is still answered, each with the word that it was the last.
                await asyncio.sleep(LAST_ANSWERS_S)
        finally:
            server.should_exit = True
            await serving
    finally:
        stopping.cancel()


def _spare_the_collector() -> None:
    """Take what is there at the start out of garbage collection.

    Modules, models and policies stay for good. Walking them all held up every request for 40 to 90 ms,
    about once in a hundred thousand.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
