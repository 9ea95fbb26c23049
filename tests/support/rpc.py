"""A gateway with its gRPC side, in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bedside.compose import open_gateway
from bedside.listen import listen_tcp, url_of
from bedside.serving import log_kind_only, make_grpc, serve_gateway
from bedside.site import Site
from secure_gateway.gateway import Gateway


@dataclass(frozen=True)
class Opened:
    """`stop` ends it, and `serving` is done once it has ended."""

    gateway: Gateway
    address: str
    url: str
    stop: asyncio.Event
    serving: asyncio.Task[None]


@asynccontextmanager
async def opened(site: Site) -> AsyncIterator[Opened]:
    """Serve the site's gateway until the end of the block; `address` is that of gRPC."""
    asyncio.get_running_loop().set_exception_handler(log_kind_only)
    stop, ready = asyncio.Event(), asyncio.Event()
    gateway = await open_gateway(site)
    server = make_grpc(gateway)
    listener = listen_tcp("127.0.0.1", 0)
    serving = asyncio.create_task(serve_gateway(gateway, listener, stop, ready.set, grpc=server))
    await ready.wait()
    try:
        yield Opened(gateway, server.address, url_of(listener), stop, serving)
    finally:
        stop.set()
        await serving
