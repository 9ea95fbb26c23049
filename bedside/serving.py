"""Runs one component until SIGINT or SIGTERM, and turns each package's errors into one line."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client.registry import Collector

from audit import AuditError
from bedside.compose import open_gateway, open_policies, resolve_secret
from bedside.errors import BedsideError
from bedside.held import HeldConnections, Unread
from bedside.http import serve_http
from bedside.listen import listen_tcp, listen_unix, url_of
from bedside.loop_load import LoopLoad
from bedside.shifts import Shifts
from bedside.site import COORDINATOR, Site
from bedside.telemetry import Telemetry
from console import ConsoleError
from coordinator import CoordinatorError
from coordinator.run import CoordinatorInputs
from coordinator.run import running as running_coordinator
from inference_node import Node, NodeError
from inference_node.run import running as running_node
from policies import PolicyError
from secure_gateway import EmbeddedNode, Gateway, GatewayError
from secure_gateway.run import running as running_gateway

if TYPE_CHECKING:
    from secure_gateway.rpc.server import GrpcServer

Exposed = Callable[[Sequence[Collector]], tuple[Collector, ...]]
Work = Callable[[asyncio.Event], Awaitable[None]]

logger = logging.getLogger(__name__)

_OURS = (AuditError, ConsoleError, CoordinatorError, GatewayError, NodeError, PolicyError)


def run_until_stopped(work: Work) -> None:
    """Run `work` on a fast event loop; the event it is given is set by SIGINT or SIGTERM.

    Raises:
        BedsideError: with one clear line, whatever component failed.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_kind_only)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await work(stop)

    try:
        uvloop.run(main())
    except _OURS as error:
        raise BedsideError(str(error)) from error


def make_grpc(gateway: Gateway) -> "GrpcServer | None":
    """Return the gRPC side of a gateway, if its settings ask for one; it listens once it is served."""
    if gateway.settings.grpc_port is None:
        return None
    # It takes 0.1 s and 10 MB to load, which a gateway without gRPC need not pay.
    from secure_gateway.rpc.server import GrpcServer  # noqa: PLC0415

    return GrpcServer(gateway)


def log_kind_only(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop met outside any task that is awaited.

    An exception's message may quote what somebody sent, and so may the event loop's own: it shows
    callbacks with their arguments. Only the exception's type is logged.
    """
    error = context.get("exception")
    logger.error("the event loop met %s outside any request", type(error))


async def serve_gateway(
    gateway: Gateway,
    listener: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    *,
    grpc: "GrpcServer | None" = None,
) -> None:
    """Serve a gateway until `stop` is set."""
    admission = gateway.settings.admission
    held = HeldConnections(gateway.threshold, admission.refusals_per_s)
    shifts = Shifts(
        admission.target_wait_s,
        refusing=gateway.threshold.refused_lately,
        load=lambda: LoopLoad(lambda: gateway.recorder.kept_awake_s),
    )
    gateway.unread.update({Unread.SHIFT: shifts, Unread.REFUSED: held})
    async with running_gateway(gateway) as app:
        stopping = None
        if grpc is not None:
            await grpc.start()
            stopping = asyncio.create_task(_stop_grpc(grpc, stop), name="stop grpc")
        try:
            # Device channels never end by themselves; closing them first lets the drain finish.
            await serve_http(
                app,
                listener,
                stop,
                ready,
                websockets=True,
                draining=gateway.hub.close,
                threshold=gateway.threshold,
                held=held,
                shifts=shifts,
                unread_timeout_s=gateway.settings.unread_timeout_s,
            )
        finally:
            if stopping is not None:
                stop.set()
                await stopping


async def _stop_grpc(grpc: "GrpcServer", stop: asyncio.Event) -> None:
    await stop.wait()
    await grpc.stop()


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
    exposed: Exposed = tuple,
) -> None:
    """Serve a node until `stop` is set."""
    release = version("bedside")
    async with running_node(node, version=release, secret=secret, exposed=exposed) as app:
        await serve_http(
            app,
            listener,
            stop,
            ready,
            draining=node.retreat,
            unread_timeout_s=node.settings.unread_timeout_s,
        )


def run_gateway(site: Site, telemetry: Telemetry) -> None:
    """Run the site's gateway until it is stopped."""

    async def work(stop: asyncio.Event) -> None:
        listener = listen_tcp(site.config.gateway.host, site.config.gateway.port)
        gateway = await open_gateway(site, telemetry)
        grpc = make_grpc(gateway)

        def ready() -> None:
            beside = "" if grpc is None else f", gRPC at {grpc.address}"
            telemetry.announce(f"gateway ready at {url_of(listener)}{beside}{_embedded(gateway)}")

        await serve_gateway(gateway, listener, stop, ready, grpc=grpc)

    run_until_stopped(work)


def run_node(site: Site, where: str, secret: str | None, telemetry: Telemetry) -> None:
    """Run a node at `where` (host:port or unix:/path) until it is stopped."""
    listener = _listen(where)
    node = Node(site.node_settings())

    def ready() -> None:
        at = where if where.startswith("unix:") else url_of(listener)
        served = [f"{e.name}/{e.version} {e.state.lower()}" for e in node.index()]
        models = ", ".join(served) or "no models"
        telemetry.announce(f"node ready at {at} on {node.provider}: {models}")

    async def work(stop: asyncio.Event) -> None:
        await serve_node(
            node,
            listener,
            stop,
            ready,
            secret=None if secret is None else resolve_secret(secret),
            exposed=telemetry.exposed,
        )

    run_until_stopped(work)


def run_coordinator(site: Site, telemetry: Telemetry) -> None:
    """Run the site's coordinator until it is stopped."""
    settings = site.config.coordinator

    async def work(stop: asyncio.Event) -> None:
        listener = listen_tcp(settings.host, settings.port)
        release_key = site.keys.signing_key("release").public_key()
        inputs = CoordinatorInputs(
            site=site.config.site,
            settings=settings,
            folder=site.data / COORDINATOR,
            policies=(await open_policies(site, COORDINATOR))[0],
            desk=site.policy_desk(),
            log_sources=site.log_sources,
            reports=site.report_maker(),
            log=await site.open_log(COORDINATOR),
            tokens=site.token_verifier(),
            pseudonymizer=site.pseudonymizer(),
            releases=site.releases(),
            registry_key=site.keys.signing_key(COORDINATOR),
            job_key=site.keys.signing_key("job"),
            release_keys=(release_key.public_bytes_raw().hex(),),
        )

        def ready(url: str) -> None:
            telemetry.announce(f"coordinator ready at {url}")

        await serve_coordinator(inputs, listener, stop, ready)

    run_until_stopped(work)


def _embedded(gateway: Gateway) -> str:
    return "".join(
        f"; {node.placement} on {node.node.provider}"
        for node in gateway.parts.nodes
        if isinstance(node, EmbeddedNode)
    )


def _listen(where: str) -> socket.socket:
    if where.startswith("unix:"):
        return listen_unix(Path(where.removeprefix("unix:")))
    host, _, port = where.rpartition(":")
    if not host or not port.isdigit():
        raise BedsideError("give a node's address as host:port or unix:/path")
    return listen_tcp(host, int(port))
