"""The little that plain ASGI needs: reading a bounded body, sending one response."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, Final

from audit.records import Problem
from inference_node import InputInvalid, stated_length
from secure_gateway.errors import Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


NOTES: Final = "bedside.notes"
"""In the scope of a request whose head the connection sent before: what was learnt from these bytes.

Only what follows from the head alone may be kept there: what a time, a policy or a limit decides is
asked anew for each request. Servers other than Bedside's own give none.
"""

ABANDONABLE: Final = "bedside.abandonable"
"""Set in the scope of a request whose work is to be cancelled once its connection is lost.

Whoever sets it leaves nothing half done when that happens. A caller that only closes its side of the
connection waits for its answer.
"""


class ClientGone(Exception):
    """Raised when the caller hung up before its body was read."""


async def read_body(receive: Receive, declared: bytes | None, limit_bytes: int) -> bytes:
    """Return the whole body.

    `declared` is the Content-Length header, if any: too large a one is refused unread.

    Raises:
        Refusal: body-too-large past `limit_bytes`, body-malformed if Content-Length is no number.
        ClientGone: if the caller hung up.
    """
    length = length_of(declared, "Content-Length")
    if length is not None and length > limit_bytes:
        raise _too_large(limit_bytes)
    event = await receive()
    if event["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = event.get("body", b"")
    if not event.get("more_body", False):
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    chunks, size = [body], len(body)
    while event.get("more_body", False):
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = event.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return b"".join(chunks)


def length_of(value: bytes | None, name: str) -> int | None:
    """Return the length that the header `name` states, or None where it was not sent.

    Raises:
        Refusal: body-malformed, if it is no number.
    """
    try:
        return stated_length(value, name)
    except InputInvalid as error:
        raise Refusal(Problem.BODY_MALFORMED, f"{error}.") from error


async def send_response(
    send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    """Send one complete response; Content-Length is added here."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, None], arrived: asyncio.Event
) -> None:
    """Await `work`, and cancel it when the caller hangs up, once the body has `arrived`."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive, arrived))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        gone = not working.done()
        if gone:
            working.cancel()
        await asyncio.wait({working, leaving})
    if not gone or not working.cancelled():
        working.result()


async def _disconnected(receive: Receive, arrived: asyncio.Event) -> None:
    # What comes before belongs to whoever reads the body.
    await arrived.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(
        Problem.BODY_TOO_LARGE,
        f"The body is larger than this gateway's limit of {limit_bytes} bytes.",
    )
