"""What a node serves in the place of a file that was replaced since the node was last probed.

A record names the file that answered, so a node runs no other than the one that it was told to
(`ModelReplaced`). It is asked at once what it serves instead, and sent the request again: replacing a
model fails no request.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from inference_node import InferRequest, InferResponse, ModelReplaced
from secure_gateway.exchange import Exchange, ModelInfo
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import SiteNode


class Replacements:
    """Finds out what serves instead, once for all requests that met the same change."""

    def __init__(self, models: ModelIndex) -> None:
        self._models = models
        self._looking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def adopt(
        self, exchange: Exchange, node: SiteNode, model: ModelInfo, replaced: ModelReplaced
    ) -> ModelInfo:
        """Set `model` of `exchange` to what `node` serves in the place of `model`, and return it.

        Raises:
            ModelReplaced: `replaced` itself, if the node says that it serves what it would not run.
            NodeError: if it does not answer.
        """
        async with self._looking[node.placement]:
            if self._models.served(node.placement, model) == model:
                self._models.update(node.placement, await node.probe())
        served = self._models.served(node.placement, model)
        if served is None or served == model:
            raise replaced
        exchange.model = served
        return served

    async def stream(
        self, exchange: Exchange, node: SiteNode, model: ModelInfo, request: InferRequest
    ) -> AsyncGenerator[InferResponse, None]:
        """Yield what `node` answers; a stream is begun again where its model was replaced.

        Raises:
            NodeError: as `SiteNode.stream`.
        """
        deadline = exchange.call.deadline
        try:
            async with aclosing(node.stream(model, request, deadline)) as responses:
                async for response in responses:
                    yield response
        except ModelReplaced as replaced:
            model = await self.adopt(exchange, node, model, replaced)
        else:
            return
        async with aclosing(node.stream(model, request, deadline)) as responses:
            async for response in responses:
                yield response
