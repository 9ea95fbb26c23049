"""Keeps a gateway's policies up to date: from the coordinator, or from the site's own file."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from audit import Log, LogUnavailable
from audit.records import PolicyStep, encode
from audit.steps import step_record
from policies import BundleKeeper, BundleUntrusted, Load, PolicyError, WatchedFile
from secure_gateway.shadow import Shadow

logger = logging.getLogger(__name__)

LIMIT_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 5.0


class DocumentSource(Protocol):
    """Where a signed document is looked for."""

    async def fetch(self) -> bytes:
        """Return the document as it is there now; empty where there is none.

        Raises:
            PolicyError, OSError, aiohttp.ClientError, TimeoutError: if it cannot be had.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class FileSource:
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path)

    async def fetch(self) -> bytes:
        """Return what the file holds."""
        return await asyncio.to_thread(self._file.read)

    async def close(self) -> None:
        """Hold nothing."""


class UrlSource:
    """A document that the coordinator serves with an ETag; 404 says that there is none."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._etag: str | None = None
        self._document = b""
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self) -> bytes:
        """Return what the coordinator serves."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        headers = {"If-None-Match": self._etag} if self._etag else {}
        async with self._session.get(self._url, headers=headers) as response:
            if response.status == 304:
                return self._document
            if response.status == 404:
                self._etag, self._document = None, b""
                return self._document
            response.raise_for_status()
            document = bytearray()
            async for chunk in response.content.iter_any():
                document += chunk
                if len(document) > LIMIT_BYTES:
                    raise BundleUntrusted("the coordinator serves more than a policy bundle can be")
            self._document, self._etag = bytes(document), response.headers.get("ETag")
            return self._document

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()


class PolicyFeed:
    """Offers what is published, and what decides in the shadow, every `interval_s`.

    Where nothing can be had, what is in force stays.
    """

    def __init__(
        self,
        keeper: BundleKeeper,
        source: DocumentSource,
        shadow: Shadow,
        shadow_source: DocumentSource,
        *,
        log: Log,
        interval_s: float,
    ) -> None:
        self._keeper = keeper
        self._source = source
        self._shadow = shadow
        self._shadow_source = shadow_source
        self._log = log
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Record how this run began, look once, then go on in the background.

        Raises:
            LogUnavailable: if going over to another bundle cannot be recorded.
        """
        await self._keeper.start(self._record)
        await self._look()
        self._task = asyncio.create_task(self._run(), name="policy-feed")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._source.close()
        await self._shadow_source.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._look()

    async def _look(self) -> None:
        try:
            document = await self._source.fetch()
            if document:
                await self._keeper.offer(document, self._record)
            await self._shadow.offer(await self._shadow_source.fetch())
        except (aiohttp.ClientError, TimeoutError, OSError, PolicyError, LogUnavailable) as error:
            # The coordinator may be down for hours; the policies in force go on deciding.
            logger.warning("policies not refreshed: %s", type(error))

    async def _record(self, load: Load) -> None:
        record = step_record(
            PolicyStep.LOAD,
            problem=load.problem,
            bundle=load.bundle,
            version=load.version,
            approvers=load.approvers,
        )
        await self._log.append(encode(record))
