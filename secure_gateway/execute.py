"""Stage 5, run: on the chosen node, or on the device that holds the data."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from audit.records import Problem
from inference_node import (
    DeadlineExceeded,
    InferResponse,
    InputInvalid,
    ModelNotReady,
    ModelReplaced,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeSilent,
    NodeUnreachable,
    QueueFull,
    asks_of_classes,
    asks_of_distributions,
    tensor_from_json,
)
from policies import Principal
from secure_gateway import frames
from secure_gateway.channel import DeviceBusy, DeviceDropped, DeviceError, DeviceHub, DeviceOffline
from secure_gateway.errors import Lost, NotBegun, Refusal, Unanswered
from secure_gateway.exchange import Exchange, ModelInfo
from secure_gateway.health import Asked
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import SiteNode
from secure_gateway.replaced import Replacements

RETRY_AFTER_S = 2

# What does not say that the node is there to answer; that an input does not fit is seen here as well.
_NO_ANSWER = (InputInvalid, NodeFailed, NodeSilent, NodeUnreachable)

_DEVICE_PROBLEMS: Mapping[frames.ErrorCode, tuple[Problem, str]] = {
    "refused": (Problem.DEVICE_REFUSED, "The device refused the request."),
    "subject-unknown": (Problem.DEVICE_REFUSED, "The device holds no data of this subject."),
    "model-unknown": (Problem.MODEL_NOT_READY, "The device does not hold this model yet."),
    "busy": (Problem.OVERLOADED, "The device is busy; try again."),
    "failed": (Problem.EXECUTION_FAILED, "The device could not run the model."),
}


class Executor:
    """Runs a request at its placement and turns what goes wrong there into a refusal."""

    def __init__(
        self,
        nodes: Mapping[str, SiteNode],
        models: ModelIndex,
        hub: DeviceHub,
        *,
        device_timeout_s: float,
    ) -> None:
        self._nodes = nodes
        self._models = models
        self._hub = hub
        self._device_timeout_s = device_timeout_s
        self._replacements = Replacements(models)

    async def execute(self, exchange: Exchange) -> InferResponse:
        """Return the model's answer.

        Raises:
            Refusal: the problem that says what went wrong; never with anything a model said.
        """
        placement, model = exchange.placement, exchange.model
        if placement is None or model is None:
            message = "execution follows routing"
            raise AssertionError(message)
        node = self._nodes.get(placement)
        if node is None:
            return await self._on_device(exchange, placement, model)
        if exchange.request is None:
            message = "a node runs tensors"
            raise AssertionError(message)
        if exchange.call.begin is not None and not node.stateless:
            await exchange.call.begin()
        deadline = exchange.call.deadline
        asked = None if deadline is None else node.health.asked(deadline)
        try:
            try:
                response = await node.infer(model, exchange.request, deadline)
            except ModelReplaced as replaced:
                model = await self._replacements.adopt(exchange, node, model, replaced)
                response = await node.infer(model, exchange.request, deadline)
        except NodeError as error:
            raise _refusal_of(error, node, asked, exchange.principal) from error
        except asyncio.CancelledError:
            node.health.left(asked)
            raise
        node.health.succeeded()
        return response

    async def stream(self, exchange: Exchange) -> AsyncGenerator[InferResponse, None]:
        """Yield the model's answers as they come; a device gives one. Closing it ends the work.

        Raises:
            Refusal: as `execute`, at the first answer or at a later one.
        """
        placement, model, request = exchange.placement, exchange.model, exchange.request
        if placement is None or model is None or request is None:
            message = "execution follows routing"
            raise AssertionError(message)
        node = self._nodes.get(placement)
        if node is None:
            yield await self._on_device(exchange, placement, model)
            return
        answers = 0
        deadline = exchange.call.deadline
        asked = None if deadline is None else node.health.asked(deadline)
        try:
            running = self._replacements.stream(exchange, node, model, request)
            async with aclosing(running) as responses:
                async for response in responses:
                    answers += 1
                    node.health.answered()
                    yield response
        except NodeError as error:
            raise _refusal_of(error, node, asked, exchange.principal) from error
        except asyncio.CancelledError:
            node.health.left(asked)
            raise
        if not answers:
            node.health.failed()
            raise Refusal(Problem.EXECUTION_FAILED, "The node gave no answer.")
        node.health.succeeded()

    async def _on_device(self, exchange: Exchange, placement: str, model: ModelInfo) -> InferResponse:
        request = exchange.request
        if request is None:
            message = "a device is sent the names of a request"
            raise AssertionError(message)
        if asks_of_distributions(request) or asks_of_classes(request):
            raise Refusal(
                Problem.INPUT_INVALID,
                "A device gives a model's outputs as they are; only nodes compute classes, quantiles, "
                "intervals and moments. Ask without them.",
            )
        try:
            result = await self._hub.connection(placement).infer(
                request_id=exchange.id,
                model=model.name,
                version=exchange.call.version,
                subject=exchange.subject,
                inputs=tuple(tensor.name for tensor in request.inputs),
                outputs=tuple(output.name for output in request.outputs),
                timeout_s=self._device_timeout_s,
            )
        except DeviceOffline as error:
            raise Refusal(
                Problem.DEVICE_OFFLINE,
                "The data is on a device that is not connected now, and may run nowhere else.",
                retry_after_s=30,
            ) from error
        except DeviceDropped as error:
            # A run on a device leaves nothing behind, so that work may be sent to it again.
            raise Unanswered(
                Problem.DEVICE_OFFLINE,
                "The device that holds the data went away before it answered.",
                retry_after_s=30,
            ) from error
        except DeviceBusy as error:
            raise Refusal(
                Problem.OVERLOADED, "Too many requests wait for the device.", retry_after_s=1
            ) from error
        except TimeoutError as error:
            raise Refusal(Problem.DEADLINE_EXCEEDED, "The device did not answer in time.") from error
        except DeviceError as error:
            problem, detail = _DEVICE_PROBLEMS[error.code]
            # It did not begin, so that work waits for it.
            retry_after_s = 1 if error.code == "busy" else None
            raise Refusal(problem, detail, retry_after_s=retry_after_s) from error
        ran = self._models.find(model.name, result.version)
        if ran is None or ran.digest != result.digest:
            raise Refusal(
                Problem.EXECUTION_FAILED, "The device ran a model that this site did not release."
            )
        exchange.model = ran
        try:
            outputs = [
                tensor_from_json(output.name, output.datatype, output.shape, output.data)
                for output in result.outputs
            ]
        except InputInvalid as error:
            raise Refusal(
                Problem.EXECUTION_FAILED, "The device's answer is not a valid tensor."
            ) from error
        return InferResponse(
            model_name=model.name,
            model_version=result.version,
            id=request.id,
            parameters={},
            outputs=outputs,
        )


def _refusal_of(
    error: NodeError, node: SiteNode, asked: Asked | None, principal: Principal | None
) -> Refusal:
    """Return what a caller is told of a node's error, and take note of what it says of the node."""
    if not isinstance(error, _NO_ANSWER) and (asked is None or asked.in_time):
        node.health.answered()
    match error:
        case InputInvalid():
            return Refusal(Problem.INPUT_INVALID, str(error))
        case QueueFull():
            return NotBegun(
                Problem.OVERLOADED, "The model's queue is full; try again.", retry_after_s=1
            )
        case NodeSilent():
            node.health.silent(asked)
            late = Unanswered if node.stateless else Refusal
            return late(Problem.DEADLINE_EXCEEDED, "The node did not answer in time.")
        case DeadlineExceeded():
            late = Unanswered if node.stateless else Refusal
            return late(
                Problem.DEADLINE_EXCEEDED, "The request's deadline passed before it was served."
            )
        case ModelUnknown():
            return NotBegun(
                Problem.MODEL_UNKNOWN, "This site serves no model of that name and version."
            )
        case ModelNotReady():
            return NotBegun(
                Problem.MODEL_NOT_READY, "The model is not ready.", retry_after_s=RETRY_AFTER_S
            )
        case NodeUnreachable():
            node.ready = False
            node.health.failed()
            return NotBegun(
                Problem.NODE_UNREACHABLE,
                "The node does not answer; try again.",
                retry_after_s=RETRY_AFTER_S,
            )
        case NodeFailed():
            node.health.failed()
            # It took the request and may have begun. Where a run leaves nothing behind, one whose
            # answer was lost is as good as none.
            kind = Lost if node.stateless else Refusal
            return kind(
                Problem.EXECUTION_FAILED,
                "The node broke off; try again.",
                retry_after_s=RETRY_AFTER_S,
            )
        case _:
            # Bedside's own nodes say so of a model that these inputs brought down, unless they say so
            # to everybody. Of others it is not known what a 500 says: one that gives nothing else is
            # left alone.
            if node.stateless:
                node.health.could_not_run(principal.id if principal else None)
            else:
                node.health.failed()
            return Refusal(Problem.EXECUTION_FAILED, "The node could not run the model.")
