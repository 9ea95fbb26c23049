"""A node from its start to its end, as the application that serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference_node.node import Node
from inference_node.server import NodeServer


@asynccontextmanager
async def running(node: Node, *, version: str, secret: str | None) -> AsyncIterator[NodeServer]:
    """Load the node's models, give its application, and drain at the end.

    Raises:
        RepositoryError: if the repository cannot be used.
    """
    await node.start()
    try:
        yield NodeServer(node, version=version, secret=secret)
    finally:
        await node.close()
