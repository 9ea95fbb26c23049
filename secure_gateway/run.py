"""A gateway from its start to its end, as the application that serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from secure_gateway.app import build_app
from secure_gateway.asgi import Application
from secure_gateway.gateway import Gateway


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Application]:
    """Start `gateway`, give its application, and close everything at the end."""
    try:
        await gateway.start()
        yield build_app(gateway)
    finally:
        await gateway.close()
