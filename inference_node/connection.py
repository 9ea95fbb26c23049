"""HTTP connections to one node, and what a broken one says about the request that was on it.

What may be tried on another node, and what may not: only `NodeUnreachable` says for certain that the
node began nothing, because not one byte of the request was handed to the network. Once a byte was, a
broken connection proves nothing. A server that closed an idle connection at that moment, and one that
ran the model and then died, look the same from here: the connection ends, or is reset, before an
answer. (HTTP forbids repeating such a POST, RFC 9110 section 9.2.2, and Go's net/http draws the
same line.) That is `NodeFailed`. So the unlucky moment is made rare instead: connections are let go
after 2 s of idleness, before servers do (uvicorn, and so MLServer: after 5 s), and one that is seen
closed before anything was written is replaced here, by a second try that the caller never notices.
A connection that carried a 500 is not used again: servers built on Starlette (MLServer, KServe) send it
and then close, which met the next request in one of four tries.
"""

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from yarl import URL

from inference_node.errors import NodeFailed, NodeSilent, NodeUnreachable

UNIX: Final = "unix:"
CONNECT_TIMEOUT_S: Final = 2.0
KEEPALIVE_S: Final = 2.0

_CLOSING: Final = 500

Answer = tuple[int, Mapping[str, str], bytes]


class NodeConnection:
    """Keeps connections to one node, over TCP (`http://host:port`) or a Unix socket (`unix:/path`)."""

    def __init__(self, url: str, secret: str | None) -> None:
        if url.startswith(UNIX):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                url.removeprefix(UNIX), limit=0, keepalive_timeout=KEEPALIVE_S
            )
            self._base = "http://node"
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
            self._base = url.rstrip("/")
        # Compression costs more than it saves between machines of a site, and an answer that is not
        # compressed is as large as it says.
        headers = {"Accept-Encoding": "identity"}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Response,
        )

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        timeout_s: float,
        limit_bytes: int,
    ) -> Answer:
        """Send a request and return its answer, whole: status, headers and content.

        Raises:
            NodeUnreachable, NodeFailed, DeadlineExceeded: see the module.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        async with self.request(method, path, body, headers, timeout=timeout) as response:
            content = await _bounded(response, limit_bytes)
            return response.status, response.headers, content

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 aiohttp's own
        due: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its response; what breaks then is a NodeError too.

        Its head has to be there when the event loop's time is `due`, in case `timeout` limits each read
        only.
        """
        try:
            if due is None:
                response = await self._sent(method, path, body, headers, timeout)
            else:
                async with asyncio.timeout_at(due):
                    response = await self._sent(method, path, body, headers, timeout)
            async with response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NodeUnreachable("the node does not answer") from error
        except TimeoutError as error:
            raise NodeSilent("the node did not answer in time") from error
        except aiohttp.ClientError as error:
            raise NodeFailed("the connection to the node broke") from error

    async def _sent(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 aiohttp's own
    ) -> aiohttp.ClientResponse:
        url = URL(self._base + path, encoded=True)
        for last in (False, True):
            sent = None if body is None else _Body(body)
            try:
                return await self._session.request(
                    method,
                    url,
                    data=sent,
                    headers=headers,
                    timeout=timeout,
                    # Where a payload goes was decided; a node cannot send it on.
                    allow_redirects=False,
                )
            except (aiohttp.ClientConnectorError, TimeoutError):
                raise
            except aiohttp.ClientConnectionError as error:
                if sent is None or sent.began:
                    raise
                if last:
                    raise NodeUnreachable("the node closes its connections") from error
        message = "the second try returns or raises"
        raise AssertionError(message)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class _Response(aiohttp.ClientResponse):
    """A response that does not give back the connection of a server that is about to close it.

    Other errors are part of how a busy server works (429, 503, 504), and cost no connection.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        started = await super().start(connection)
        if self.status == _CLOSING and protocol is not None:
            protocol.force_close()
            if self.closed:
                # It came whole with its head, and its connection is back already.
                protocol.close()
        return started


class _Body(aiohttp.BytesPayload):
    """A body that knows whether any of it, or of its request's head, may have reached the network.

    aiohttp holds the head back and writes it together with the body, and a connection that it finds
    closed then gets neither.
    """

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self.began = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        transport = writer.transport
        if transport is None or transport.is_closing() or _ended(transport):
            raise aiohttp.ClientConnectionResetError("the connection was closed while idle")
        self.began = True
        await super().write_with_length(writer, content_length)


def _ended(transport: asyncio.WriteTransport) -> bool:
    """Say whether the server has ended an idle connection, and the event loop has not seen it yet.

    Before it is asked, a server has nothing to say but goodbye. (Under TLS it does: session tickets.)
    """
    if transport.get_extra_info("sslcontext") is not None:
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def _bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    if is_encoded(response):
        raise NodeFailed("the node's answer is compressed, which it was told not to do")
    length = response.content_length
    if length is not None and length <= limit_bytes:
        return await response.read()
    content = bytearray()
    if length is None:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > limit_bytes:
                break
        else:
            return bytes(content)
    # Leaving the response unread closes its connection.
    raise NodeFailed(f"the node's answer is larger than {limit_bytes} bytes")


def is_encoded(response: aiohttp.ClientResponse) -> bool:
    """Say whether an answer is compressed, which no node was asked for."""
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"
