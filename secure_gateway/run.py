"""Serve a gateway on a socket until it is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from secure_gateway.app import build_app
from secure_gateway.gateway import Gateway

GRACE_S = 10


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: whoever runs several parts owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    gateway: Gateway,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Serve `gateway` on `listener` until `stop` is set, then drain and close everything.

    `ready` is called once requests are accepted.
    """
    await gateway.start()
    server = _Server(
        uvicorn.Config(
            build_app(gateway),
            http="httptools",
            ws="websockets-sansio",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            backlog=2048,
            ws_max_size=16 * 1024 * 1024,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="gateway-http")
    stopping = asyncio.create_task(stop.wait(), name="gateway-stop")
    try:
        ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # Device channels never end by themselves; closing them first lets the drain finish.
        await gateway.hub.close()
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        await gateway.close()
