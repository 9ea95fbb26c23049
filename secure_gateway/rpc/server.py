"""The gRPC listeners of one gateway: made, watched over, and stopped without losing a call."""

import asyncio
import contextlib
import logging
import socket
from typing import Any, Final

import grpc
import grpc.aio

from secure_gateway.errors import GatewayError
from secure_gateway.gateway import Gateway
from secure_gateway.rpc.health import HealthService
from secure_gateway.rpc.quiet import withhold_quotes
from secure_gateway.rpc.reflection import reflection_handlers
from secure_gateway.rpc.service import InferenceService
from secure_gateway.rpc.settings import Compression

GRACE_S: Final = 10
LISTENERS: Final = 2

# A token may be 8 KiB long, which is all that grpc takes by itself.
METADATA_MAX_BYTES: Final = 32 * 1024

_LOOK_INTERVAL_S: Final = 0.05

_COMPRESSION: Final = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.DEFLATE: grpc.Compression.Deflate,
    Compression.GZIP: grpc.Compression.Gzip,
}

logger = logging.getLogger(__name__)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, Any], unknown: Any) -> None:  # noqa: ANN401
        self._handlers = handlers
        self._unknown = unknown

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401
        return self._handlers.get(handler_call_details.method, self._unknown)


class GrpcServer:
    """Serves a gateway over gRPC on the event loop that serves everything else.

    grpc's own threads read and write the sockets; Python runs on the event loop only. One thing keeps
    a server of grpc from taking calls ever after, and anybody can send it: a method's name that is not
    UTF-8 (as of grpcio 1.85). So two servers share the port. What one of them has taken it finishes;
    its clients are told to connect again and find the other; another one takes its place.
    """

    def __init__(self, gateway: Gateway) -> None:
        """Make the services of `gateway`; nothing listens before `start`."""
        withhold_quotes()
        host = gateway.settings.host
        self._host = f"[{host}]" if ":" in host else host
        self._settings = gateway.settings
        self._health = HealthService(gateway)
        self._service = InferenceService(gateway, self._health)
        handlers = {
            **self._service.handlers(),
            **self._health.handlers(),
            **reflection_handlers(),
        }
        unknown = grpc.stream_stream_rpc_method_handler(self._service.unknown)
        self._methods = _Methods(handlers, unknown)
        self._port = 0
        self._servers: set[grpc.aio.Server] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen on the gateway's host and gRPC port, and take calls.

        Raises:
            GatewayError: if the port cannot be bound.
        """
        self._port = _free_port(self._settings.host, self._settings.grpc_port or 0)
        for _ in range(LISTENERS):
            await self._listen()

    async def stop(self) -> None:
        """Say that the gateway stops, take no more calls, finish those under way for 10 s at most."""
        self._health.stop()
        self._service.stop()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(server.stop(GRACE_S) for server in self._servers), *self._ending)

    async def _listen(self) -> None:
        server = grpc.aio.server(
            handlers=(self._methods,),
            options=self._options(),
            compression=_COMPRESSION[self._settings.grpc.compression],
        )
        try:
            server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise _taken(self._settings.host, self._port) from error
        await server.start()
        self._servers.add(server)
        watching = asyncio.create_task(self._watch(server), name="grpc")
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch(self, server: grpc.aio.Server) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            while await server.wait_for_termination(_LOOK_INTERVAL_S):
                pass
        logger.warning("a gRPC listener broke off; another one takes its place")
        self._servers.discard(server)
        ending = asyncio.create_task(server.stop(GRACE_S), name="end grpc")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await self._listen()

    def _options(self) -> tuple[tuple[str, int], ...]:
        limits = self._settings.grpc
        return (
            ("grpc.max_receive_message_length", self._settings.body_limit_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", limits.concurrent_streams),
            ("grpc.max_metadata_size", METADATA_MAX_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
            ("grpc.keepalive_time_ms", int(limits.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(limits.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_recv_ping_interval_without_data_ms",
                int(limits.least_ping_interval_s * 1000),
            ),
            ("grpc.so_reuseport", 1),
        )


def _free_port(host: str, port: int) -> int:
    """Return `port` if nobody else has it, or one that is free for 0.

    The listeners share their port, so two gateways with the same setting would too, without a word.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Only who listens is in the way of a listener whose address may be used again.
            probe.listen()
        except OSError as error:
            raise _taken(host, port) from error
        chosen: int = probe.getsockname()[1]
        return chosen


def _taken(host: str, port: int) -> GatewayError:
    return GatewayError(f"cannot listen for gRPC on {host} port {port}; choose another")
