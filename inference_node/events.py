"""Many responses to one request as server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from inference_node.codec import encode_response
from inference_node.errors import NodeError
from inference_node.oip import InferRequest, InferResponse

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def send_events(
    responses: AsyncGenerator[InferResponse, None], request: InferRequest, receive: Receive, send: Send
) -> None:
    """Send each response as one event; an error after the first is an event of its own.

    The next response is asked for once the last was taken. When the connection closes, `responses` is
    closed, and with it the work behind it.

    Raises:
        NodeError: if there is no first response; nothing was sent then.
    """
    sending = asyncio.ensure_future(_send_all(responses, request, send))
    closed = asyncio.ensure_future(_closed(receive))
    try:
        await asyncio.wait({sending, closed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closed.cancel()
        if not sending.done():
            sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closed
    with contextlib.suppress(asyncio.CancelledError):
        await sending


async def _send_all(
    responses: AsyncGenerator[InferResponse, None], request: InferRequest, send: Send
) -> None:
    async with contextlib.aclosing(responses):
        first = await anext(responses)
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _send_event(send, first, request)
        try:
            async for response in responses:
                await _send_event(send, response, request)
        except NodeError as error:
            body = b"event: error\ndata: %s\n\n" % msgspec.json.encode({"error": str(error)})
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _send_event(send: Send, response: InferResponse, request: InferRequest) -> None:
    body = b"data: %s\n\n" % encode_response(response, request)[0]
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
