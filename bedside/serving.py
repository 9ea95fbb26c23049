"""Runs one component until SIGINT or SIGTERM, and turns each package's errors into one line."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import uvloop

from audit import AuditError
from bedside.compose import open_gateway, resolve_secret
from bedside.errors import BedsideError
from bedside.http import serve_http
from bedside.listen import listen_tcp, listen_unix, url_of
from bedside.site import COORDINATOR, Site
from coordinator import CoordinatorError
from coordinator.run import CoordinatorInputs
from coordinator.run import running as running_coordinator
from inference_node import Node, NodeError
from inference_node.run import running as running_node
from policies import PolicyError
from secure_gateway import Gateway, GatewayError
from secure_gateway.run import running as running_gateway

Say = Callable[[str], None]
Work = Callable[[asyncio.Event], Awaitable[None]]

_OURS = (AuditError, CoordinatorError, GatewayError, NodeError, PolicyError)


def run_until_stopped(work: Work) -> None:
    """Run `work` on a fast event loop; the event it is given is set by SIGINT or SIGTERM.

    Raises:
        BedsideError: with one clear line, whatever component failed.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await work(stop)

    try:
        uvloop.run(main())
    except _OURS as error:
        raise BedsideError(str(error)) from error


async def serve_gateway(
    gateway: Gateway, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Serve a gateway until `stop` is set."""
    async with running_gateway(gateway) as app:
        # Device channels never end by themselves; closing them first lets the drain finish.
        await serve_http(app, listener, stop, ready, websockets=True, draining=gateway.hub.close)


async def serve_coordinator(
    inputs: CoordinatorInputs,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Serve a coordinator until `stop` is set; `ready` is told its URL."""
    url = inputs.settings.url or url_of(listener)
    async with running_coordinator(inputs, url) as app:
        await serve_http(app, listener, stop, lambda: ready(url))


async def serve_node(
    node: Node,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    *,
    secret: str | None,
) -> None:
    """Serve a node until `stop` is set."""
    async with running_node(node, version=version("bedside"), secret=secret) as app:
        await serve_http(app, listener, stop, ready)


def run_gateway(site: Site, say: Say) -> None:
    """Run the site's gateway until it is stopped."""

    async def work(stop: asyncio.Event) -> None:
        listener = listen_tcp(site.config.gateway.host, site.config.gateway.port)
        gateway = await open_gateway(site)
        await serve_gateway(
            gateway, listener, stop, lambda: say(f"gateway ready at {url_of(listener)}")
        )

    run_until_stopped(work)


def run_node(site: Site, where: str, secret: str | None, say: Say) -> None:
    """Run a node at `where` (host:port or unix:/path) until it is stopped."""
    listener = _listen(where)
    node = Node(site.node_settings())

    def ready() -> None:
        at = where if where.startswith("unix:") else url_of(listener)
        served = [f"{e.name}/{e.version} {e.state.lower()}" for e in node.index()]
        say(f"node ready at {at} on {node.provider}: {', '.join(served) or 'no models'}")

    async def work(stop: asyncio.Event) -> None:
        await serve_node(
            node,
            listener,
            stop,
            ready,
            secret=None if secret is None else resolve_secret(secret),
        )

    run_until_stopped(work)


def run_coordinator(site: Site, say: Say) -> None:
    """Run the site's coordinator until it is stopped."""
    settings = site.config.coordinator

    async def work(stop: asyncio.Event) -> None:
        listener = listen_tcp(settings.host, settings.port)
        release_key = site.keys.signing_key("release").public_key()
        inputs = CoordinatorInputs(
            site=site.config.site,
            settings=settings,
            folder=site.data / COORDINATOR,
            engine=site.engine(),
            log=await site.open_log(COORDINATOR),
            tokens=site.token_verifier(),
            pseudonymizer=site.pseudonymizer(),
            releases=site.releases(),
            registry_key=site.keys.signing_key(COORDINATOR),
            job_key=site.keys.signing_key("job"),
            release_keys=(release_key.public_bytes_raw().hex(),),
        )
        await serve_coordinator(inputs, listener, stop, lambda url: say(f"coordinator ready at {url}"))

    run_until_stopped(work)


def _listen(where: str) -> socket.socket:
    if where.startswith("unix:"):
        return listen_unix(Path(where.removeprefix("unix:")))
    host, _, port = where.rpartition(":")
    if not host or not port.isdigit():
        raise BedsideError("give a node's address as host:port or unix:/path")
    return listen_tcp(host, int(port))
