"""Sealed answers in a Redis or Valkey server that several gateways share.

The server is an optimisation: one that is slow, away or wrong costs a bounded time, then nothing, and
never a request.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

PREFIX: Final = b"bedside:cache:1:"
CONNECTIONS_MAX: Final = 64

# What redis-py raises, besides its own errors, when it reads what no Redis server writes: lengths that
# are no numbers, keys that cannot be hashed, lists in lists. It has closed the connection by then.
_NONSENSE: Final = (AttributeError, EOFError, LookupError, RecursionError, TypeError, ValueError)

T = TypeVar("T")


class RedisBackend:
    """Asks the server for `timeout_s` at most; after a failure it is left alone for `rest_s`.

    As many ask at once as there are connections. Who waits for one in vain was not failed by the
    server.
    """

    def __init__(
        self,
        url: str,
        *,
        lifetime_s: float,
        timeout_s: float,
        rest_s: float,
        password: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime_ms = int(lifetime_s * 1000)
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._clock = clock
        self._resting_until = 0.0
        self.failures = 0
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._redis: Redis = Redis.from_url(
            url,
            password=password,
            socket_connect_timeout=timeout_s,
            socket_timeout=timeout_s,
            # A second try would only make the caller wait twice as long.
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS_MAX,
        )

    async def get(self, key: bytes) -> bytes | None:
        """Return the value, or None where there is none or the server does not say."""
        value = await self._ask(lambda: self._redis.get(PREFIX + key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes) -> None:
        """Have the server keep `value`, if it answers."""
        await self._ask(lambda: self._redis.set(PREFIX + key, value, px=self._lifetime_ms))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    @property
    def _resting(self) -> bool:
        return self._clock() < self._resting_until

    async def _ask(self, command: Callable[[], Awaitable[T]]) -> T | None:
        if self._resting:
            return None
        asked = False
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                if self._resting:
                    return None
                asked = True
                return await command()
        except (RedisError, OSError, TimeoutError, *_NONSENSE) as error:
            if not asked:
                return None
            self.failures += 1
            self._resting_until = self._clock() + self._rest_s
            logger.warning(
                "the cache's server failed (%s); it is left alone for %.1f s",
                type(error),
                self._rest_s,
            )
            return None
