"""Serves an ASGI application on a socket until it is told to stop: what every component needs."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

import uvicorn

GRACE_S: Final = 10
BACKLOG: Final = 2048
FRAME_LIMIT_BYTES: Final = 16 * 1024 * 1024

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class _Server(uvicorn.Server):
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
) -> None:
    """Serve `app` on `listener` until `stop` is set, then finish what is under way, for 10 s at most.

    `ready` is called once requests are accepted; `draining` is awaited first when stopping, to end
    what would never end by itself.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio" if websockets else "none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            # Nobody's word is taken for where a request came from.
            proxy_headers=False,
            backlog=BACKLOG,
            ws_max_size=FRAME_LIMIT_BYTES,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if draining is not None:
            await draining()
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
