"""Stage 5, run: on the chosen node, or on the device that holds the data."""

from collections.abc import Mapping

from audit.records import Problem
from inference_node import (
    DeadlineExceeded,
    ExecutionFailed,
    InferResponse,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    NodeError,
    NodeUnreachable,
    QueueFull,
    tensor_from_json,
)
from secure_gateway import frames
from secure_gateway.channel import DeviceBusy, DeviceError, DeviceHub, DeviceOffline
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Exchange, ModelInfo
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import SiteNode

RETRY_AFTER_S = 2

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
        return await self._on_node(exchange, node, model)

    async def _on_node(self, exchange: Exchange, node: SiteNode, model: ModelInfo) -> InferResponse:
        if exchange.request is None:
            message = "a node runs tensors"
            raise AssertionError(message)
        try:
            return await node.infer(model, exchange.request)
        except InputInvalid as error:
            raise Refusal(Problem.INPUT_INVALID, str(error)) from error
        except QueueFull as error:
            raise Refusal(
                Problem.OVERLOADED, "The model's queue is full; try again.", retry_after_s=1
            ) from error
        except DeadlineExceeded as error:
            raise Refusal(
                Problem.DEADLINE_EXCEEDED, "The request's deadline passed before it was served."
            ) from error
        except ModelUnknown as error:
            raise Refusal(
                Problem.MODEL_UNKNOWN, "This site serves no model of that name and version."
            ) from error
        except ModelNotReady as error:
            raise Refusal(
                Problem.MODEL_NOT_READY, "The model is not ready.", retry_after_s=RETRY_AFTER_S
            ) from error
        except NodeUnreachable as error:
            node.ready = False
            raise Refusal(
                Problem.NODE_UNREACHABLE,
                "The node does not answer; try again.",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        except (ExecutionFailed, NodeError) as error:
            raise Refusal(Problem.EXECUTION_FAILED, "The node could not run the model.") from error

    async def _on_device(self, exchange: Exchange, placement: str, model: ModelInfo) -> InferResponse:
        request = exchange.request
        if request is None:
            message = "a device is sent the names of a request"
            raise AssertionError(message)
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
        except DeviceBusy as error:
            raise Refusal(
                Problem.OVERLOADED, "Too many requests wait for the device.", retry_after_s=1
            ) from error
        except TimeoutError as error:
            raise Refusal(Problem.DEADLINE_EXCEEDED, "The device did not answer in time.") from error
        except DeviceError as error:
            problem, detail = _DEVICE_PROBLEMS[error.code]
            raise Refusal(problem, detail) from error
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
