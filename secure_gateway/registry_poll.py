"""Keeps the device directory up to date from the coordinator."""

import asyncio
import contextlib
import logging

import aiohttp

from secure_gateway.directory import DeviceDirectory
from secure_gateway.errors import RegistryError

logger = logging.getLogger(__name__)

DOCUMENT_LIMIT_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 5.0


class RegistryPoll:
    """Fetches the signed registry every `interval_s`; a failed fetch keeps the one in use."""

    def __init__(self, directory: DeviceDirectory, url: str | None, interval_s: float) -> None:
        self._directory = directory
        self._url = url
        self._interval_s = interval_s
        self._etag: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fetch once, then go on in the background; does nothing without a coordinator."""
        if self._url is None:
            return
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        await self._fetch_once(self._session, self._url)
        self._task = asyncio.create_task(self._run(self._session, self._url), name="registry-poll")

    async def close(self) -> None:
        """Stop fetching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._session is not None:
            await self._session.close()

    async def _run(self, session: aiohttp.ClientSession, url: str) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._fetch_once(session, url)

    async def _fetch_once(self, session: aiohttp.ClientSession, url: str) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        try:
            async with session.get(url, headers=headers) as response:
                if response.status == 304:
                    return
                response.raise_for_status()
                document = bytearray()
                async for chunk in response.content.iter_any():
                    document += chunk
                    if len(document) > DOCUMENT_LIMIT_BYTES:
                        raise RegistryError("the device registry is larger than 64 MiB")
                self._directory.accept(bytes(document))
                self._etag = response.headers.get("ETag")
        except (aiohttp.ClientError, TimeoutError, RegistryError) as error:
            # The coordinator may be down for hours; devices already known go on being served.
            logger.warning("device registry not refreshed: %s", type(error))
