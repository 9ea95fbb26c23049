"""The response cache: answers to questions that were asked before, sealed, and off by default."""

from secure_gateway.cache.memory import MemoryBackend
from secure_gateway.cache.permission import MAY_CACHE, NO_CACHE, cacheable
from secure_gateway.cache.response import CacheCounters, ResponseCache
from secure_gateway.cache.settings import CacheScope, CacheSettings

__all__ = [
    "MAY_CACHE",
    "NO_CACHE",
    "CacheCounters",
    "CacheScope",
    "CacheSettings",
    "MemoryBackend",
    "ResponseCache",
    "cacheable",
]
