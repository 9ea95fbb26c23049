"""What can be asked of a site's models besides inference, whatever protocol asks.

Each question is authenticated, authorized and recorded like a request. What its nodes say is put
together as one answer of the site. Loading and unloading happen on every node that has the model.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from audit.records import Problem
from inference_node import (
    DeadlineExceeded,
    ModelMetadata,
    ModelNotReady,
    ModelStatistics,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeUnreachable,
    RepositoryEntry,
)
from policies import ApiAction
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call, Exchange, ModelInfo
from secure_gateway.merge import merge_indexes, merge_statistics
from secure_gateway.models import ModelIndex
from secure_gateway.nodes import NodeProber, SiteNode
from secure_gateway.pipeline import Pipeline

RETRY_AFTER_S: Final = 2

# What may stand in a record, and so what a model can be called.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")

T = TypeVar("T")


class Done(Struct, Generic[T], frozen=True):
    """How a question ended: its recorded answer and, unless that is a refusal, what was asked for."""

    answer: Answer
    value: T | None


class Operations:
    """Answers for all nodes of a site.

    Every method raises `LogUnavailable` if the record cannot be made durable; nothing but 503 may be
    answered then. All else that goes wrong is the refusal of the answer.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        nodes: Mapping[str, SiteNode],
        models: ModelIndex,
        prober: NodeProber,
    ) -> None:
        self._pipeline = pipeline
        self._nodes = nodes
        self._models = models
        self._prober = prober

    async def ready(self, call: Call) -> Done[ModelInfo]:
        """Say that a model serves (Action.MODELS); refused as unknown if it does not."""

        async def work(exchange: Exchange) -> ModelInfo:
            return self._resolve(exchange)

        return await self._ask(call, ApiAction.MODELS_READ, work)

    async def metadata(self, call: Call) -> Done[ModelMetadata]:
        """Return what a model takes and gives (Action.MODELS), from a node that serves it."""
        return await self._ask(
            call,
            ApiAction.MODELS_READ,
            lambda exchange: self._read(exchange, lambda node, model: node.metadata(model)),
        )

    async def config(self, call: Call) -> Done[dict[str, Any]]:
        """Return a model's configuration under Triton's names (Action.MODELS), as `metadata`."""
        return await self._ask(
            call,
            ApiAction.MODELS_READ,
            lambda exchange: self._read(exchange, lambda node, model: node.config(model)),
        )

    async def statistics(self, call: Call) -> Done[tuple[ModelStatistics, ...]]:
        """Return what models did (Action.STATISTICS): all, those of a name, or one version.

        It is the sum over the nodes that answer; a node's counts begin when it loads a model.
        """

        async def work(exchange: Exchange) -> tuple[ModelStatistics, ...]:
            if call.model is not None:
                self._resolve(exchange)
            asked = [node.statistics(call.model, call.version or None) for node in self._ready()]
            merged = merge_statistics(await self._answers(asked))
            if not merged and call.model is not None:
                raise Refusal(Problem.NOT_FOUND, "No node that serves this model counts what it does.")
            return merged

        return await self._ask(call, ApiAction.STATISTICS_READ, work)

    async def index(self, call: Call, *, ready: bool = False) -> Done[tuple[RepositoryEntry, ...]]:
        """Return what the nodes that answer have (Action.INDEX); with `ready` only what serves."""

        async def work(_: Exchange) -> tuple[RepositoryEntry, ...]:
            asked = [node.index() for node in self._ready()]
            return merge_indexes(await self._answers(asked), ready=ready)

        return await self._ask(call, ApiAction.REPOSITORY_READ, work)

    async def load(self, call: Call) -> Done[tuple[str, ...]]:
        """Load a model on every node that has it (Action.LOAD); return where that was done.

        One node's failure does not undo another's success: the refusal names the nodes, the record
        lists those that were changed, and the call can be repeated.
        """
        return await self._ask(
            call,
            ApiAction.MODELS_LOAD,
            lambda exchange: self._change(exchange, lambda node, name: node.load(name)),
        )

    async def unload(self, call: Call) -> Done[tuple[str, ...]]:
        """Stop serving a model on every node that has it (Action.UNLOAD); as `load`."""
        return await self._ask(
            call,
            ApiAction.MODELS_LOAD,
            lambda exchange: self._change(exchange, lambda node, name: node.unload(name)),
        )

    async def _ask(
        self, call: Call, action: ApiAction, work: Callable[[Exchange], Awaitable[T]]
    ) -> Done[T]:
        found: list[T] = []

        async def run(exchange: Exchange) -> None:
            found.append(await work(exchange))

        answer = await self._pipeline.authorize(call, action, run)
        return Done(answer, found[0] if found and answer.exchange.refusal is None else None)

    def _resolve(self, exchange: Exchange) -> ModelInfo:
        model = exchange.model = self._models.resolve(exchange.call.model, exchange.call.version)
        return model

    def _ready(self) -> list[SiteNode]:
        return [node for node in self._nodes.values() if node.ready]

    async def _read(self, exchange: Exchange, read: Callable[[SiteNode, ModelInfo], Awaitable[T]]) -> T:
        model = self._resolve(exchange)
        failed: NodeError | None = None
        for placement, node in self._nodes.items():
            if node.ready and self._models.served(placement, model):
                try:
                    return await read(node, model)
                except NodeError as error:
                    failed = error
        if isinstance(failed, ModelUnknown):
            raise Refusal(Problem.NOT_FOUND, "No node that serves this model tells that of it.")
        raise _unreachable("No node that serves this model answers; try again.") from failed

    async def _answers(self, asked: Sequence[Awaitable[Sequence[T]]]) -> list[Sequence[T]]:
        """Return what nodes answered, without those that do not know; refuse if none answers."""
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, NodeError):
                raise answer
        failed = [answer for answer in answers if isinstance(answer, NodeError)]
        known = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not known and not any(isinstance(error, _SAYS_NO) for error in failed):
            raise _unreachable("No node of this site answers; try again.")
        return known

    async def _change(
        self, exchange: Exchange, change: Callable[[SiteNode, str], Awaitable[None]]
    ) -> tuple[str, ...]:
        name = exchange.call.model or ""
        if not _NAME.fullmatch(name):
            raise _no_such_model()
        nodes = list(self._nodes.values())
        results = await asyncio.gather(*(change(node, name) for node in nodes), return_exceptions=True)
        changed, missing, failed = [], 0, {}
        for node, result in zip(nodes, results, strict=True):
            if result is None:
                changed.append(node.placement)
            elif isinstance(result, ModelUnknown):
                missing += 1
            elif isinstance(result, NodeError):
                failed[node.placement] = result
            elif isinstance(result, BaseException):
                raise result
        exchange.changed = tuple(changed)
        # What serves has changed, so the next request must see it.
        await asyncio.gather(*(self._prober.probe(node) for node in nodes))
        if changed or (failed and await self._known(name)):
            # A node has a model of that name, so it is the site's own word and may be recorded.
            exchange.model = ModelInfo(name, "", None)
        if failed:
            raise _unchanged(changed, failed)
        if missing == len(nodes):
            raise _no_such_model()
        return exchange.changed

    async def _known(self, name: str) -> bool:
        try:
            indexes = await self._answers([node.index() for node in self._ready()])
        except Refusal:
            return False
        return any(entry.name == name for index in indexes for entry in index)


_AWAY: Final = (DeadlineExceeded, NodeFailed, NodeUnreachable)
_SAYS_NO: Final = (ModelUnknown, ModelNotReady)


def _unreachable(detail: str) -> Refusal:
    return Refusal(Problem.NODE_UNREACHABLE, detail, retry_after_s=RETRY_AFTER_S)


def _no_such_model() -> Refusal:
    return Refusal(Problem.MODEL_UNKNOWN, "No node of this site has a model of that name.")


def _unchanged(changed: Sequence[str], failed: Mapping[str, NodeError]) -> Refusal:
    # A node's reasons speak of files and settings; they are for whoever may load models.
    reasons = "; ".join(f"{placement}: {error}" for placement, error in failed.items())
    done = f" It was done on {', '.join(changed)}." if changed else ""
    away = all(isinstance(error, _AWAY) for error in failed.values())
    problem = Problem.NODE_UNREACHABLE if away else Problem.MODEL_NOT_READY
    return Refusal(problem, f"It was not done on every node ({reasons}).{done}")
