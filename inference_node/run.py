"""A node from its start to its end, as the application that serves it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client.registry import Collector

from inference_node.node import Node
from inference_node.server import NodeServer


@asynccontextmanager
async def running(
    node: Node,
    *,
    version: str,
    secret: str | None,
    exposed: Callable[[Sequence[Collector]], tuple[Collector, ...]],
) -> AsyncIterator[NodeServer]:
    """Load the node's models, give its application, and drain at the end.

    Raises:
        RepositoryError: if the repository cannot be used.
    """
    await node.start()
    try:
        yield NodeServer(node, version=version, secret=secret, exposed=exposed)
    finally:
        await node.close()
