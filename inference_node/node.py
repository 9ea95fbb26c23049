"""A node: validates requests against its models and runs them through their batchers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import Any

from inference_node.errors import InputInvalid, ModelNotReady, ModelReplaced
from inference_node.iterate import iterate, steps_wanted
from inference_node.loading import LoadedModel
from inference_node.oip import (
    Array,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryEntry,
    Tensor,
)
from inference_node.postprocess import classes_wanted, classify
from inference_node.raw import completed
from inference_node.repository import Found, Repository
from inference_node.settings import NodeSettings
from inference_node.statistics import ModelStatistics
from inference_node.summaries import Summaries, asked_of, sources, summarize
from inference_node.validation import feed_of, whole_parameter

PRIORITY_MAX = (1 << 64) - 1


class Node:
    """Serves one model repository; used inside a gateway's process or behind its own server."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self._repository = Repository(settings)
        # Models are loaded one at a time: each may take all the memory that is left.
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving = False

    async def start(self) -> None:
        """Load the repository, off the event loop.

        Raises:
            RepositoryError: if it cannot be used at all.
        """
        for name in await asyncio.to_thread(self._repository.open):
            found = await asyncio.to_thread(self._repository.read, name)
            self._repository.swap(name, found)
        self._serving = True

    async def retreat(self) -> None:
        """Say that the node is not ready any more, and serve on for as long as the settings say."""
        self._serving = False
        await asyncio.sleep(self.settings.drain_s)

    async def close(self) -> None:
        """Finish what waits, runs, streams or is being loaded, and let go of the models."""
        self._serving = False
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in {model.name for model in self._repository.serving()}:
            self._retire(self._repository.remove(name))
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def load(self, name: str) -> None:
        """Load a model, or load it again, beside what serves; then serve the new versions instead.

        Requests that the old versions have taken are finished by them. A load that fails takes nothing
        away: what could be loaded is served, and whatever else serves goes on as it was.

        Raises:
            ModelUnknown: if the repository has no such model.
            ModelNotReady: with the reason, if a version of it cannot be loaded.
        """
        if not self._serving:
            raise ModelNotReady("the node is stopping")
        # Who asked may go away; what was begun is finished, so that nothing loaded is left behind.
        await asyncio.shield(self._keep(self._load(name)))

    async def unload(self, name: str) -> None:
        """Stop serving a model; what it has taken is finished.

        Raises:
            ModelUnknown: if the repository has no such model.
        """
        async with self._changing:
            self._retire(self._repository.remove(name))

    @property
    def provider(self) -> str:
        """The ONNX Runtime execution provider in use."""
        return self._repository.provider

    @property
    def ready(self) -> bool:
        """Whether the node serves and, with `strict_readiness`, no model version is broken."""
        return self._serving and (self._repository.well or not self.settings.strict_readiness)

    def loaded(self) -> list[LoadedModel]:
        """Return the model versions that serve, in order."""
        return self._repository.serving()

    def index(self) -> list[RepositoryEntry]:
        """Return every model version found, with its state."""
        return self._repository.index()

    def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Return what a model takes and gives.

        Raises:
            ModelUnknown, ModelNotReady: if it does not serve.
        """
        return self._repository.find(name, version).metadata(self._repository.versions(name))

    def config(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Return a model's configuration under the names of Triton's ModelConfig, completed.

        Raises:
            ModelUnknown, ModelNotReady: if it does not serve.
        """
        return self._repository.find(name, version).configuration()

    def statistics(self, name: str | None = None, version: str | None = None) -> list[ModelStatistics]:
        """Return what models did since they were loaded: all, those of a name, or one version.

        Raises:
            ModelUnknown, ModelNotReady: if what is named does not serve.
        """
        return [
            model.batcher.counters.report(model.name, model.version)
            for model in self._repository.serving(name, version)
        ]

    async def infer(
        self,
        name: str,
        version: str | None,
        request: InferRequest,
        deadline: float | None = None,
        *,
        digest: str | None = None,
    ) -> InferResponse:
        """Run one request; `deadline` is a `time.monotonic()` time, `digest` that of the model's file.

        The request parameters `priority` (1 is the highest, 0 the model's default) and `timeout`
        (microseconds in the queue) are Triton's.

        Raises:
            ModelUnknown, ModelNotReady: if the model does not serve.
            ModelReplaced: if a file of another digest serves in its place.
            InputInvalid: if the request does not fit it.
            QueueFull, DeadlineExceeded: if it cannot be served in time.
            ExecutionFailed: if the model could not be run on these inputs.
        """
        model = self._repository.find(name, version)
        _expect(model, digest)
        if model.config.iteration is not None:
            raise InputInvalid("the model answers with many responses; ask for a stream")
        feed, rows = _feed(model, request)
        names, asked = _outputs(model, request)
        ran = _with_sources(names, asked)
        if request.parameters:
            results = await model.batcher.submit(
                feed,
                ran,
                rows,
                deadline,
                priority=whole_parameter(request, "priority", PRIORITY_MAX),
                timeout_s=whole_parameter(request, "timeout", PRIORITY_MAX) / 1e6,
            )
        else:
            results = await model.batcher.submit(feed, ran, rows, deadline)
        response = _response(model, request, names, results, {})
        if asked:
            await _summarized(response, asked, names, results, deadline)
        return response

    async def stream(
        self,
        name: str,
        version: str | None,
        request: InferRequest,
        deadline: float | None = None,
        *,
        digest: str | None = None,
    ) -> AsyncGenerator[InferResponse, None]:
        """Run one request and yield each response; a model of one response yields that.

        Each response's parameters have `step`, from 1, and `triton_final_response`. The request
        parameter `steps` may ask for fewer than the model gives. Closing the generator ends the work.

        Raises:
            NodeError: as `infer`, at the first response or at a later one.
        """
        model = self._repository.find(name, version)
        _expect(model, digest)
        iteration = model.config.iteration
        if iteration is None:
            response = await self.infer(name, version, request, deadline, digest=digest)
            response.parameters = {**response.parameters, "step": 1, "triton_final_response": True}
            yield response
            return
        feed, rows = _feed(model, request)
        names, asked = _outputs(model, request)
        steps = steps_wanted(iteration, request)
        answers = iterate(
            model.batcher,
            iteration,
            feed,
            _with_sources(names, asked),
            rows,
            steps,
            deadline,
            priority=whole_parameter(request, "priority", PRIORITY_MAX),
            timeout_s=whole_parameter(request, "timeout", PRIORITY_MAX) / 1e6,
        )
        try:
            step = 0
            async for results in answers:
                step += 1
                parameters = {"step": step, "triton_final_response": step == steps}
                response = _response(model, request, names, results, parameters)
                if asked:
                    await _summarized(response, asked, names, results, deadline)
                yield response
        finally:
            await answers.aclose()

    async def _load(self, name: str) -> None:
        async with self._changing:
            found: Found = await asyncio.to_thread(self._repository.read, name)
            self._retire(self._repository.swap(name, found))
        for version, reason in found.failed.items():
            raise ModelNotReady(f"version {version or 'none'}: {reason}")

    def _retire(self, models: Sequence[LoadedModel]) -> None:
        for model in models:
            self._keep(model.retire())

    def _keep(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _expect(model: LoadedModel, digest: str | None) -> None:
    if digest is not None and digest != model.digest:
        raise ModelReplaced(model.digest)


def _feed(model: LoadedModel, request: InferRequest) -> tuple[Mapping[str, Array], int]:
    if request.raw is not None:
        request = completed(request, model.inputs, batches=model.batches)
    feed, rows = feed_of(model.inputs, request, batches=model.batches)
    if model.rows_limit is not None and rows > model.rows_limit:
        raise InputInvalid(f"the model takes at most {model.rows_limit} rows in one request")
    return feed, rows


def _outputs(model: LoadedModel, request: InferRequest) -> tuple[tuple[str, ...], Summaries]:
    """Return the model's outputs that the answer has, and what is asked of its distributions."""
    names = model.output_names
    if not request.outputs and not request.parameters:
        return names, ()
    asked = asked_of(model.config.distributions, request)
    if not request.outputs:
        return names, asked
    derived = {name for one in asked for name in one.names}
    wanted = dict.fromkeys(output.name for output in request.outputs if output.name not in derived)
    if not wanted.keys() <= set(names):
        raise InputInvalid(f"the model gives only: {', '.join(names)}")
    return tuple(wanted), asked


def _with_sources(names: tuple[str, ...], asked: Summaries) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *sources(asked)))) if asked else names


def _response(
    model: LoadedModel,
    request: InferRequest,
    names: tuple[str, ...],
    results: Sequence[Array],
    parameters: dict[str, Any],
) -> InferResponse:
    # What else was run, behind them, is only the source of what is asked of distributions.
    outputs = [
        Tensor(
            name=output,
            datatype=model.outputs[output].datatype,
            shape=result.shape,
            array=result,
        )
        for output, result in zip(names, results[: len(names)], strict=True)
    ]
    for wanted in request.outputs:
        if wanted.parameters and (k := classes_wanted(wanted.parameters)) is not None:
            if wanted.name not in names:
                raise InputInvalid("a derived output cannot be classified")
            tensor = outputs[names.index(wanted.name)]
            if tensor.array is not None:
                labels = model.labels.get(wanted.name, ())
                tensor.array = classify(tensor.array, k, labels, batched=model.batches)
                tensor.shape, tensor.datatype = tensor.array.shape, "BYTES"
    return InferResponse(
        model_name=model.name,
        model_version=model.version,
        id=request.id,
        outputs=outputs,
        parameters=parameters,
    )


async def _summarized(
    response: InferResponse,
    asked: Summaries,
    names: tuple[str, ...],
    results: Sequence[Array],
    deadline: float | None,
) -> None:
    """Add to `response` what is asked of the model's distributions."""
    sources_of = dict(zip(_with_sources(names, asked), results, strict=True))
    response.outputs += await summarize(asked, sources_of, deadline)
