"""The site's nodes as the gateway sees them: one in this process, or others over the network."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from inference_node import (
    DeadlineExceeded,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelStatistics,
    Node,
    NodeClient,
    NodeError,
    NodeUnreachable,
    RepositoryEntry,
    derived_outputs,
    feed_of,
    open_rows,
    says_that_it_batches,
)
from policies import Candidate
from secure_gateway.exchange import ModelInfo
from secure_gateway.health import NodeHealth
from secure_gateway.models import ModelIndex

PROBE_INTERVAL_S = 1.0
# How long a server that names no digest of a model is believed to serve the same.
DESCRIBED_FOR_S = 30.0

logger = logging.getLogger(__name__)


class SiteNode(Protocol):
    """A node of the site: something that runs models on tensors that are sent to it."""

    candidate: Candidate
    ready: bool
    outstanding: int
    chosen: int
    health: NodeHealth

    @property
    def stateless(self) -> bool:
        """Whether a run leaves nothing behind, so that one whose answer was lost may be repeated."""

    @property
    def placement(self) -> str:
        """`node:<id>`."""

    async def infer(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> InferResponse:
        """Run the model by `deadline`, a `time.monotonic()` time; raises `inference_node` errors."""

    def stream(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> AsyncGenerator[InferResponse, None]:
        """Run the model and yield each response; closing the generator ends the work."""

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Return the model's inputs and outputs."""

    async def config(self, model: ModelInfo) -> dict[str, Any]:
        """Return the model's configuration; raises ModelUnknown where the node does not tell."""

    async def statistics(self, name: str | None, version: str | None) -> Sequence[ModelStatistics]:
        """Return what models did: all, those of a name, or one; raises ModelUnknown as `config`."""

    async def index(self) -> Sequence[RepositoryEntry]:
        """Return what the node has, with its state."""

    async def load(self, name: str) -> None:
        """Load a model, or load it again; raises ModelUnknown where the node has none of that name."""

    async def unload(self, name: str) -> None:
        """Stop serving a model; raises ModelUnknown where the node has none of that name."""

    async def probe(self) -> Sequence[ModelInfo]:
        """Return the models that are ready; raises `inference_node` errors when it does not answer."""

    async def close(self) -> None:
        """Let go of what the node holds."""


class EmbeddedNode:
    """A node inside the gateway's own process."""

    stateless = True

    def __init__(self, candidate: Candidate, node: Node) -> None:
        self.candidate = candidate
        self.placement = candidate.placement
        self.ready = True
        self.outstanding = 0
        self.chosen = 0
        self.health = NodeHealth()
        self._node = node

    @property
    def node(self) -> Node:
        """The node itself."""
        return self._node

    async def infer(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> InferResponse:
        """Run the model in this process."""
        self.outstanding += 1
        try:
            return await self._node.infer(
                model.name, model.version, request, deadline, digest=model.digest
            )
        finally:
            self.outstanding -= 1

    async def stream(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> AsyncGenerator[InferResponse, None]:
        """Run the model in this process and yield each response."""
        self.outstanding += 1
        responses = self._node.stream(model.name, model.version, request, deadline, digest=model.digest)
        try:
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response
        finally:
            self.outstanding -= 1

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Return the model's inputs and outputs."""
        return self._node.metadata(model.name, model.version)

    async def config(self, model: ModelInfo) -> dict[str, Any]:
        """Return the model's configuration."""
        return self._node.config(model.name, model.version)

    async def statistics(self, name: str | None, version: str | None) -> Sequence[ModelStatistics]:
        """Return what models did since they were loaded."""
        return self._node.statistics(name, version)

    async def index(self) -> Sequence[RepositoryEntry]:
        """Return what is in the repository."""
        return self._node.index()

    async def load(self, name: str) -> None:
        """Load a model, or load it again."""
        await self._node.load(name)

    async def unload(self, name: str) -> None:
        """Stop serving a model."""
        await self._node.unload(name)

    async def probe(self) -> Sequence[ModelInfo]:
        """Return the models that are ready."""
        return _ready(self._node.index())

    async def close(self) -> None:
        """Drain and close the node."""
        await self._node.close()


class RemoteNode:
    """A node behind an Open Inference Protocol server."""

    def __init__(self, candidate: Candidate, client: NodeClient, timeout_s: float) -> None:
        self.candidate = candidate
        self.placement = candidate.placement
        self.ready = False
        self.outstanding = 0
        self.chosen = 0
        self.health = NodeHealth()
        self.stateless = False
        self._client = client
        self._timeout_s = timeout_s
        self._metadata: dict[ModelInfo, ModelMetadata] = {}
        self._batching: frozenset[ModelInfo] = frozenset()
        self._left_out: set[ModelInfo] = set()
        self._described_at = 0.0
        self._failures = 0
        self._in_doubt = False

    async def infer(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> InferResponse:
        """Send the request to the node, once it is seen to fit the model."""
        metadata = self._fitting(model, request)
        timeout_s = self._timeout_s
        if deadline is not None:
            timeout_s = min(timeout_s, _left(deadline))
        self.outstanding += 1
        try:
            return await self._client.infer(
                model.name,
                model.version,
                request,
                timeout_s=timeout_s,
                digest=model.digest,
                outputs=metadata.outputs if metadata is not None else (),
                # What another server makes of such parameters is its own affair.
                derived=derived_outputs(metadata, request) if metadata and self.stateless else (),
                rows=request.rows if model in self._batching else None,
            )
        finally:
            self.outstanding -= 1

    async def stream(
        self, model: ModelInfo, request: InferRequest, deadline: float | None
    ) -> AsyncGenerator[InferResponse, None]:
        """Send the request to the node and yield each response; each may take the node's timeout."""
        metadata = self._fitting(model, request)
        self.outstanding += 1
        try:
            responses = self._client.stream(
                model.name,
                model.version,
                request,
                timeout_s=self._timeout_s,
                total_s=None if deadline is None else _left(deadline),
                digest=model.digest,
                outputs=metadata.outputs if metadata is not None else (),
                derived=derived_outputs(metadata, request) if metadata and self.stateless else (),
                rows=request.rows if model in self._batching else None,
            )
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response
        finally:
            self.outstanding -= 1

    async def config(self, model: ModelInfo) -> dict[str, Any]:
        """Ask the node for the model's configuration."""
        return await self._client.config(model.name, model.version)

    async def statistics(self, name: str | None, version: str | None) -> Sequence[ModelStatistics]:
        """Ask the node what models did."""
        return await self._client.statistics(name, version)

    async def index(self) -> Sequence[RepositoryEntry]:
        """Ask the node what it has."""
        return await self._client.index()

    async def load(self, name: str) -> None:
        """Have the node load a model, or load it again."""
        await self._client.load(name)

    async def unload(self, name: str) -> None:
        """Have the node stop serving a model."""
        await self._client.unload(name)

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Ask the node for the model's inputs and outputs."""
        return await self._client.metadata(model.name, model.version)

    async def probe(self) -> Sequence[ModelInfo]:
        """Ask the node what it serves."""
        try:
            index = await self._client.index()
            # Only our own nodes name digests, and their ONNX models keep nothing from run to run.
            ready = [entry for entry in index if entry.state == "READY"]
            self.stateless = bool(index) and all(entry.digest for entry in ready)
            self._metadata = await self._described(_ready(index))
        except NodeError:
            self._in_doubt = True
            raise
        return tuple(self._metadata)

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._client.close()

    def _fitting(self, model: ModelInfo, request: InferRequest) -> ModelMetadata | None:
        metadata = self._metadata.get(model)
        # Servers need not say what a model takes; some of MLServer's do not. What a raw request means
        # is found out where it runs.
        if metadata is not None and metadata.inputs and request.raw is None:
            # Nor does what they say tell whether a first dimension is that of rows: the node knows.
            feed_of(metadata.inputs, request, batches=False)
        return metadata

    async def _described(self, models: Sequence[ModelInfo]) -> dict[ModelInfo, ModelMetadata]:
        """Return the metadata of each model; one that has none to give is left out, and only that one.

        What is known is kept for as long as a model stays ready, so that a probe costs little. But a
        node that was away may be another since. Where a model has no digest, nothing shows that it is
        the same: it is asked for again now and then, and after the node failed.
        """
        failures, now = self.health.failures, time.monotonic()
        outdated = failures != self._failures or now - self._described_at >= DESCRIBED_FOR_S
        in_doubt, self._in_doubt, self._failures = self._in_doubt, False, failures
        if outdated:
            self._described_at = now
        described: dict[ModelInfo, ModelMetadata] = {}
        batching = set()
        for model in models:
            doubtful = in_doubt or (outdated and model.digest is None)
            known = None if doubtful else self._metadata.get(model)
            try:
                described[model] = known or await self.metadata(model)
                if known is None:
                    batches = await self._batches(model, described[model])
                else:
                    batches = model in self._batching
                if batches:
                    batching.add(model)
            except (NodeUnreachable, DeadlineExceeded):
                raise
            except NodeError as error:
                if model in self._left_out:
                    continue
                self._left_out.add(model)
                logger.warning("%s: model %s is left out: %s", self.placement, model.name, error)
        self._batching = frozenset(batching)
        return described

    async def _batches(self, model: ModelInfo, metadata: ModelMetadata) -> bool:
        """Say whether answers have as many rows as requests; our own nodes see to that themselves."""
        if model.digest is not None or not open_rows(metadata):
            return False
        try:
            return says_that_it_batches(await self.config(model)) is not False
        except (NodeUnreachable, DeadlineExceeded):
            raise
        except NodeError:
            # Servers need not tell, and most do not.
            return True


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline passed before the request was sent")
    return left_s


def _ready(index: Sequence[RepositoryEntry]) -> list[ModelInfo]:
    return [
        ModelInfo(entry.name, entry.version, entry.digest or None)
        for entry in index
        if entry.state == "READY"
    ]


class NodeProber:
    """Keeps `ready` of every node, and the models that it serves, up to date."""

    def __init__(self, nodes: Mapping[str, SiteNode], models: ModelIndex) -> None:
        self._nodes = nodes
        self._models = models
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Probe every node once, then go on in the background."""
        await self.probe_all()
        # Each on its own: a node that is slow to answer must not keep the others from being seen.
        self._tasks = [
            asyncio.create_task(self._run(node), name=f"probe {node.placement}")
            for node in self._nodes.values()
        ]

    async def close(self) -> None:
        """Stop probing."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def probe_all(self) -> None:
        """Probe every node now."""
        await asyncio.gather(*(self.probe(node) for node in self._nodes.values()))

    async def _run(self, node: SiteNode) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self.probe(node)

    async def probe(self, node: SiteNode) -> None:
        """Probe one node now."""
        try:
            models = await node.probe()
        except NodeError:
            node.ready = False
            return
        node.ready = True
        self._models.update(node.placement, models)
