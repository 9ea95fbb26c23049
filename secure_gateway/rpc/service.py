"""`inference.GRPCInferenceService`: every method of the published service, on the gateway's pipeline.

Facts travel as metadata under the names of the REST headers. Liveness, readiness and server metadata
are open, as probes expect; everything else is authenticated, decided, recorded and only then answered.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc.aio import AbortError, InternalError

from audit.records import Action, Problem
from inference_node import ServerMetadata
from inference_node.protobuf import (
    ModelInferRequest,
    message_of,
    model_metadata_message,
    request_of,
    server_metadata_message,
)
from inference_node.protobuf_extensions import (
    index_message,
    model_config_message,
    statistics_message,
)
from inference_node.schema import SERVICE, message_class, method_names
from secure_gateway import respond
from secure_gateway.errors import Refusal, unforeseen
from secure_gateway.exchange import Answer
from secure_gateway.gateway import Gateway
from secure_gateway.rest import EXTENSIONS
from secure_gateway.rpc.health import HealthService
from secure_gateway.rpc.patience import Patience
from secure_gateway.rpc.received import Received
from secure_gateway.rpc.status import abort
from secure_gateway.rpc.streams import StreamService
from secure_gateway.version import VERSION

Serve = Callable[[Any], Awaitable[Message]]

logger = logging.getLogger(__name__)

ModelReadyRequest: Final = message_class("ModelReadyRequest")
ModelReadyResponse: Final = message_class("ModelReadyResponse")
ModelMetadataRequest: Final = message_class("ModelMetadataRequest")
ModelConfigRequest: Final = message_class("ModelConfigRequest")
ModelStatisticsRequest: Final = message_class("ModelStatisticsRequest")
RepositoryIndexRequest: Final = message_class("RepositoryIndexRequest")
RepositoryModelLoadRequest: Final = message_class("RepositoryModelLoadRequest")
RepositoryModelLoadResponse: Final = message_class("RepositoryModelLoadResponse")
RepositoryModelUnloadRequest: Final = message_class("RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse: Final = message_class("RepositoryModelUnloadResponse")
ServerLiveResponse: Final = message_class("ServerLiveResponse")
ServerReadyResponse: Final = message_class("ServerReadyResponse")

_NOT_SERVING: Final = frozenset({Problem.MODEL_UNKNOWN, Problem.MODEL_NOT_READY})


class InferenceService:
    """Serves the protocol's methods of one gateway."""

    def __init__(self, gateway: Gateway, health: HealthService) -> None:
        self._gateway = gateway
        self._health = health
        patience = Patience()
        self._received = partial(Received, gateway, patience)
        self._streams = StreamService(gateway, patience)
        self._metadata = server_metadata_message(
            ServerMetadata(name="bedside", version=VERSION, extensions=EXTENSIONS)
        )

    def stop(self) -> None:
        """Let streams finish what they were sent, and take nothing more."""
        self._streams.stop()

    def handlers(self) -> dict[str, Any]:
        """Return the handler of each method by its path; requests and answers are bytes."""
        served: dict[str, Serve] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._infer,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        # A handler of streams is called before the message was read, which is what `Received` needs; on
        # the wire one message is one message.
        handlers = {
            f"/{SERVICE}/{name}": grpc.stream_unary_rpc_method_handler(partial(_answer, serve))
            for name, serve in served.items()
        }
        handlers[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._streams.serve
        )
        not_offered = grpc.stream_stream_rpc_method_handler(self._not_offered)
        for name in method_names():
            handlers.setdefault(f"/{SERVICE}/{name}", not_offered)
        return handlers

    async def unknown(self, _requests: object, context: Any) -> None:  # noqa: ANN401
        """Refuse and record a call to a method that does not exist."""
        refusal = Refusal(Problem.NOT_FOUND, "See the Open Inference Protocol v2 for methods.")
        received = self._received(context, Action.INFER)
        await received.refuse(refusal, grpc.StatusCode.UNIMPLEMENTED)

    async def _not_offered(self, _requests: object, context: Any) -> None:  # noqa: ANN401
        refusal = Refusal(
            Problem.METHOD_NOT_ALLOWED,
            "Shared memory, tracing and log settings of Triton are not offered: they reach past the "
            "record of what was asked.",
        )
        await self._received(context, Action.INFER).refuse(refusal)

    async def _live(self, _: Any) -> Message:  # noqa: ANN401
        message: Message = ServerLiveResponse(live=True)
        return message

    async def _ready(self, _: Any) -> Message:  # noqa: ANN401
        message: Message = ServerReadyResponse(ready=self._health.serving)
        return message

    async def _server_metadata(self, _: Any) -> Message:  # noqa: ANN401
        return self._metadata

    async def _infer(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.INFER)
        message = await received.message(ModelInferRequest)
        call = received.asks(message.model_name, message.model_version)
        answer = await received.recorded(
            self._gateway.pipeline.serve(call, partial(request_of, message))
        )
        return await self._inferred(received, answer)

    async def _inferred(self, received: Received, answer: Answer) -> Message:
        exchange = answer.exchange
        response = exchange.response
        if exchange.refusal is not None or response is None:
            await received.end(answer)
        response.parameters.update(respond.parameters(exchange, answer.record))
        trailing = [("bedside-record", answer.record)]
        if exchange.placement is not None:
            trailing.append(("bedside-placement", exchange.placement))
        received.context.set_trailing_metadata(trailing)
        return message_of(response, exchange.request)

    async def _model_ready(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.MODELS)
        asked = await received.message(ModelReadyRequest)
        done = await received.recorded(
            self._gateway.operations.ready(received.asks(asked.name, asked.version))
        )
        refusal = done.answer.exchange.refusal
        # "Not ready" is an answer here, and no error.
        if refusal is not None and refusal.problem not in _NOT_SERVING:
            await received.end(done.answer)
        context.set_trailing_metadata((("bedside-record", done.answer.record),))
        message: Message = ModelReadyResponse(ready=refusal is None)
        return message

    async def _model_metadata(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.MODELS)
        asked = await received.message(ModelMetadataRequest)
        call = received.asks(asked.name, asked.version)
        return model_metadata_message(await received.done(self._gateway.operations.metadata(call)))

    async def _model_config(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.MODELS)
        asked = await received.message(ModelConfigRequest)
        call = received.asks(asked.name, asked.version)
        config = await received.done(self._gateway.operations.config(call))
        return model_config_message(config)

    async def _statistics(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.STATISTICS)
        asked = await received.message(ModelStatisticsRequest)
        call = received.asks(asked.name, asked.version)
        statistics = await received.done(self._gateway.operations.statistics(call))
        return statistics_message(statistics)

    async def _index(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.INDEX)
        asked = await received.message(RepositoryIndexRequest)
        if asked.repository_name:
            await received.refuse(_another_repository())
        asking = self._gateway.operations.index(received.call, ready=asked.ready)
        index = await received.done(asking)
        return index_message(index)

    async def _load(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.LOAD)
        asked = await received.message(RepositoryModelLoadRequest)
        if asked.repository_name or asked.parameters:
            # A configuration or a file of the request's own would serve what nobody released.
            await received.refuse(
                Refusal(
                    Problem.INPUT_INVALID, "A model is loaded as it is on disk, without parameters."
                )
            )
        await received.done(self._gateway.operations.load(received.asks(asked.model_name)))
        message: Message = RepositoryModelLoadResponse()
        return message

    async def _unload(self, context: Any) -> Message:  # noqa: ANN401
        received = self._received(context, Action.UNLOAD)
        asked = await received.message(RepositoryModelUnloadRequest)
        if asked.repository_name:
            await received.refuse(_another_repository())
        await received.done(self._gateway.operations.unload(received.asks(asked.model_name)))
        message: Message = RepositoryModelUnloadResponse()
        return message


def _another_repository() -> Refusal:
    return Refusal(Problem.INPUT_INVALID, "The site has one repository, unnamed.")


async def _answer(serve: Serve, _requests: object, context: Any) -> bytes:  # noqa: ANN401
    """Run one method; a defect of ours ends as INTERNAL, where grpc would quote it to the caller."""
    try:
        return (await serve(context)).SerializeToString()
    except AbortError:
        raise
    except InternalError:
        # The call is gone, a broken stream say: what it came to is recorded, and nobody hears of it.
        raise AbortError from None
    except Exception as error:  # noqa: BLE001 the last place that can keep its words from the caller
        await abort(context, unforeseen(error), None)
