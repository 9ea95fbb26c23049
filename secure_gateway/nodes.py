"""The site's nodes as the gateway sees them: one in this process, or others over the network."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from inference_node import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Node,
    NodeClient,
    NodeError,
    RepositoryEntry,
    feed_of,
)
from policies import Candidate
from secure_gateway.exchange import ModelInfo
from secure_gateway.models import ModelIndex

PROBE_INTERVAL_S = 1.0


class SiteNode(Protocol):
    """A node of the site: something that runs models on tensors that are sent to it."""

    candidate: Candidate
    ready: bool
    outstanding: int

    @property
    def placement(self) -> str:
        """`node:<id>`."""

    async def infer(self, model: ModelInfo, request: InferRequest) -> InferResponse:
        """Run the model; raises `inference_node` errors."""

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Return the model's inputs and outputs."""

    async def probe(self) -> Sequence[ModelInfo]:
        """Return the models that are ready; raises `inference_node` errors when it does not answer."""

    async def close(self) -> None:
        """Let go of what the node holds."""


class EmbeddedNode:
    """A node inside the gateway's own process."""

    def __init__(self, candidate: Candidate, node: Node) -> None:
        self.candidate = candidate
        self.placement = candidate.placement
        self.ready = True
        self.outstanding = 0
        self._node = node

    async def infer(self, model: ModelInfo, request: InferRequest) -> InferResponse:
        """Run the model in this process."""
        self.outstanding += 1
        try:
            return await self._node.infer(model.name, model.version, request)
        finally:
            self.outstanding -= 1

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Return the model's inputs and outputs."""
        return self._node.metadata(model.name, model.version)

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
        self._client = client
        self._timeout_s = timeout_s
        self._metadata: dict[ModelInfo, ModelMetadata] = {}

    async def infer(self, model: ModelInfo, request: InferRequest) -> InferResponse:
        """Send the request to the node, once it is seen to fit the model."""
        metadata = self._metadata.get(model)
        if metadata is not None:
            feed_of(metadata.inputs, request)
        self.outstanding += 1
        try:
            return await self._client.infer(
                model.name, model.version, request, timeout_s=self._timeout_s
            )
        finally:
            self.outstanding -= 1

    async def metadata(self, model: ModelInfo) -> ModelMetadata:
        """Ask the node for the model's inputs and outputs."""
        return await self._client.metadata(model.name, model.version)

    async def probe(self) -> Sequence[ModelInfo]:
        """Ask the node what it serves."""
        models = _ready(await self._client.index())
        for model in models:
            if model not in self._metadata:
                self._metadata[model] = await self._client.metadata(model.name, model.version)
        return models

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._client.close()


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
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Probe every node once, then go on in the background."""
        await self._probe_all()
        self._task = asyncio.create_task(self._run(), name="node-prober")

    async def close(self) -> None:
        """Stop probing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self._probe_all()

    async def _probe_all(self) -> None:
        await asyncio.gather(*(self._probe(node) for node in self._nodes.values()))

    async def _probe(self, node: SiteNode) -> None:
        try:
            models = await node.probe()
        except NodeError:
            node.ready = False
            return
        node.ready = True
        self._models.update(node.placement, models)
