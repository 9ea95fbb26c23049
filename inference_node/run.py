"""Serve a node on a socket, TCP or Unix, until it is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from inference_node.node import Node
from inference_node.server import NodeServer

GRACE_S = 10


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this process."""
        yield


async def serve_node(
    node: Node,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    *,
    version: str,
    secret: str | None,
) -> None:
    """Load the node's models and serve them on `listener` until `stop` is set, then drain.

    Raises:
        RepositoryError: if the repository cannot be used.
    """
    await node.start()
    server = _Server(
        uvicorn.Config(
            NodeServer(node, version=version, secret=secret),
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="node-http")
    stopping = asyncio.create_task(stop.wait(), name="node-stop")
    ready()
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
    await node.close()
