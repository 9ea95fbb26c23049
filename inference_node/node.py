"""A node: validates requests against its models and runs them through their batchers."""

import asyncio

from inference_node.errors import InputInvalid
from inference_node.oip import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryEntry,
    Tensor,
)
from inference_node.repository import LoadedModel, Repository
from inference_node.settings import NodeSettings
from inference_node.validation import feed_of


class Node:
    """Serves one model repository; used inside a gateway's process or behind its own server."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self._repository = Repository(settings)

    async def start(self) -> None:
        """Load the repository, off the event loop.

        Raises:
            RepositoryError: if it cannot be used at all.
        """
        await asyncio.to_thread(self._repository.load)

    async def close(self) -> None:
        """Finish the requests that wait and let go of the models."""
        await self._repository.close()

    @property
    def provider(self) -> str:
        """The ONNX Runtime execution provider in use."""
        return self._repository.provider

    def index(self) -> list[RepositoryEntry]:
        """Return every model version found, with its state."""
        return self._repository.index()

    def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Return what a model takes and gives.

        Raises:
            ModelUnknown, ModelNotReady: if it does not serve.
        """
        model = self._repository.find(name, version)
        return model.session.metadata(name, self._repository.versions(name))

    async def infer(
        self,
        name: str,
        version: str | None,
        request: InferRequest,
        deadline: float | None = None,
    ) -> InferResponse:
        """Run one request; `deadline` is a `time.monotonic()` time.

        Raises:
            ModelUnknown, ModelNotReady: if the model does not serve.
            InputInvalid: if the request does not fit it.
            QueueFull, DeadlineExceeded: if it cannot be served in time.
            ExecutionFailed: if the model could not be run on these inputs.
        """
        model = self._repository.find(name, version)
        feed, rows = feed_of(model.session.inputs, request)
        names = _outputs(model, request)
        results = await model.batcher.submit(feed, names, rows, deadline)
        metadata = {output.name: output for output in model.session.outputs}
        return InferResponse(
            model_name=name,
            model_version=model.version,
            id=request.id,
            outputs=[
                Tensor(
                    name=output,
                    datatype=metadata[output].datatype,
                    shape=result.shape,
                    array=result,
                )
                for output, result in zip(names, results, strict=True)
            ],
            parameters={},
        )


def _outputs(model: LoadedModel, request: InferRequest) -> tuple[str, ...]:
    names = model.session.output_names
    if not request.outputs:
        return names
    wanted = tuple(dict.fromkeys(output.name for output in request.outputs))
    if not set(wanted) <= set(names):
        raise InputInvalid(f"the model gives only: {', '.join(names)}")
    return wanted
