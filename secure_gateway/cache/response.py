"""Looks up and keeps answers: the one object that the pipeline speaks to.

The question is always decided and recorded first; what the cache saves is the run.
"""

import struct
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final, Protocol

from msgspec import Struct

from inference_node import InferRequest, InferResponse, InputInvalid, decode_response, encode_response
from secure_gateway.cache.keys import has_one_answer, key_of, size_of
from secure_gateway.cache.permission import cacheable
from secure_gateway.cache.settings import CacheScope, CacheSettings
from secure_gateway.exchange import Exchange, ModelInfo
from secure_gateway.sealing import SealBroken, Sealer, derive_key

TENANT_KEYS_MAX: Final = 4096

_HEAD_LENGTH_BYTES: Final = 4
_ALL_IN_BINARY: Final = InferRequest(inputs=[], binary_output=True)

Execute = Callable[[Exchange], Awaitable[InferResponse]]


class Backend(Protocol):
    """Where sealed answers are kept."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep the value for a while."""

    async def close(self) -> None:
        """Let go of what is held."""


class CacheCounters(Struct, kw_only=True):
    """What became of the requests that the cache was asked about.

    `barred` were never looked up: policy, their model or their form does not allow it. `unreadable`
    were found and did not open: changed, of another key, or of an earlier version; each is a miss too.
    """

    hits: int = 0
    misses: int = 0
    barred: int = 0
    stored: int = 0
    unreadable: int = 0


class ResponseCache:
    """Keeps a model's answers under keyed hashes of the questions, sealed.

    A tenant is a principal or, with `scope = "site"`, everyone: only within one is an answer shared, or
    the time that it takes a sign that somebody asked before.
    """

    def __init__(
        self,
        settings: CacheSettings,
        secret: bytes,
        backend: Backend,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take `backend` over; `secret` is the site's 32 bytes for this purpose."""
        self._clock = clock
        self.counters = CacheCounters()
        self._scope = settings.scope
        self._entry_limit_bytes = settings.entry_limit_bytes
        self._lifetime_s = settings.lifetime_s
        self._sealer = Sealer(secret, "cache value 2")
        self._backend = backend
        self._tenant_key = lru_cache(TENANT_KEYS_MAX)(
            lambda tenant: derive_key(secret, f"cache tenant {tenant}")
        )

    async def recall(self, exchange: Exchange, execute: Execute) -> tuple[InferResponse, bool]:
        """Return the answer to a decided and routed exchange, and whether it was kept from before.

        Raises:
            Whatever `execute` raises: what did not succeed is never kept.
        """
        key = self.question(exchange)
        if key is None:
            self.counters.barred += 1
            return await execute(exchange), False
        response = await self.lookup(key, exchange)
        if response is not None:
            self.counters.hits += 1
            return response, True
        self.counters.misses += 1
        asked = exchange.model
        response = await execute(exchange)
        if exchange.model == asked:
            # Otherwise another node was tried, whose model has another digest.
            await self.store(key, response)
        return response, False

    def question(self, exchange: Exchange) -> bytes | None:
        """Return the key of what `exchange` asks, or None if its answer must not be kept."""
        principal, facts, decision = exchange.principal, exchange.facts, exchange.decision
        model, request = exchange.model, exchange.request
        if principal is None or facts is None or decision is None or model is None or request is None:
            return None
        if model.digest is None or not cacheable(decision, facts):
            return None
        if not has_one_answer(request) or size_of(request) > self._entry_limit_bytes:
            return None
        tenant = f"principal {principal.id}" if self._scope is CacheScope.PRINCIPAL else "site"
        return self.key(tenant, model, request)

    def key(self, tenant: str, model: ModelInfo, request: InferRequest) -> bytes:
        """Return the key under which `tenant` finds the answer of `model` to `request`."""
        return key_of(self._tenant_key(tenant), model, request)

    async def lookup(self, key: bytes, exchange: Exchange) -> InferResponse | None:
        """Return the answer that is kept under `key`, as one to `exchange`, or None."""
        sealed = await self._backend.get(key)
        if sealed is None:
            return None
        try:
            expires, content = _expiry_of(self._sealer.open(sealed, key))
            if self._clock() >= expires:
                return None
            response = _decoded(content)
        except (SealBroken, InputInvalid):
            self.counters.unreadable += 1
            return None
        model, request = exchange.model, exchange.request
        if model is not None:
            response.model_name, response.model_version = model.name, model.version
        response.id = request.id if request is not None else None
        return response

    async def store(self, key: bytes, response: InferResponse) -> None:
        """Keep `response` under `key`, unless it is too large."""
        content = _encoded(response)
        if len(content) <= self._entry_limit_bytes:
            self.counters.stored += 1
            # Under the seal, so that a store that keeps values longer cannot give them out again.
            expires = struct.pack("<d", self._clock() + self._lifetime_s)
            await self._backend.put(key, self._sealer.seal(expires + content, key))

    async def close(self) -> None:
        """Let go of the backend."""
        await self._backend.close()


def _expiry_of(opened: bytes) -> tuple[float, bytes]:
    (expires,) = struct.unpack_from("<d", opened)
    return expires, opened[struct.calcsize("<d") :]


def _encoded(response: InferResponse) -> bytes:
    """Return outputs and parameters; whose question it was is not part of an answer."""
    anonymous = InferResponse(
        model_name="", model_version="", outputs=response.outputs, parameters=response.parameters
    )
    body, head_length = encode_response(anonymous, _ALL_IN_BINARY)
    return (len(body) if head_length is None else head_length).to_bytes(
        _HEAD_LENGTH_BYTES, "little"
    ) + body


def _decoded(content: bytes) -> InferResponse:
    head_length = int.from_bytes(content[:_HEAD_LENGTH_BYTES], "little")
    return decode_response(content[_HEAD_LENGTH_BYTES:], header_length=head_length)
