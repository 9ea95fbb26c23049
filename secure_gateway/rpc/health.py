"""The standard health service (grpc.health.v1): for the server and for the inference service.

Health is open, as probes expect, and answered from what the gateway knows at that moment. The library's
own servicer holds a status that somebody must set, and forgets a service's other watchers once one of
them leaves.
"""

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from inference_node.schema import SERVICE
from secure_gateway.gateway import Gateway

HEALTH: Final = "grpc.health.v1.Health"

# How soon a watcher learns of a change; nothing announces that a log's disk is full.
WATCH_INTERVAL_S: Final = 0.5

_KNOWN: Final = ("", SERVICE)


class HealthService:
    """Answers Check and Watch for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stopping = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether requests are served now, and will be a moment later."""
        return self._gateway.ready and not self._stopping.is_set()

    def stop(self) -> None:
        """Tell everyone that the gateway stops; watchers are told and let go."""
        self._stopping.set()

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method by its path."""
        serializers = {
            "request_deserializer": HealthCheckRequest.FromString,
            "response_serializer": HealthCheckResponse.SerializeToString,
        }
        return {
            f"/{HEALTH}/Check": grpc.unary_unary_rpc_method_handler(self._check, **serializers),
            f"/{HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(self._watch, **serializers),
        }

    async def _check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: ANN401
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the server has no service of that name")
        return self._response(request.service)

    async def _watch(self, request: HealthCheckRequest, context: Any) -> None:  # noqa: ANN401
        told = None
        while True:
            stopping = self._stopping.is_set()
            response = self._response(request.service)
            if response.status != told:
                told = response.status
                await context.write(response)
            if stopping:
                return
            try:
                async with asyncio.timeout(WATCH_INTERVAL_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def _response(self, service: str) -> HealthCheckResponse:
        if service not in _KNOWN:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if self.serving else HealthCheckResponse.NOT_SERVING
        )
