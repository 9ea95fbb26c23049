"""One request of an HTTP/1.1 connection and its response, with a shorter way out than uvicorn's.

uvicorn writes a response's head and its body apart, which is two system calls and often two packets
for what a client waits for at once; and it waits for an event also where the body is there already.
"""

import asyncio
from functools import lru_cache
from typing import Any, Final

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

# What is copied into one buffer: one is written with one plain system call, two are not.
COPIED_BYTES: Final = 64 * 1024


def _nothing() -> None:
    """Do nothing, once a connection has gone on."""


class Cycle(RequestResponseCycle):
    """One request and its response; the response's head waits for the first part of its body."""

    access_log = False
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    # Added to with `+=`: a body that comes in one piece is never copied.
    body: Any = b""
    head: Any = None
    taken = False
    ended = False

    def __init__(
        self,
        protocol: HttpToolsProtocol,
        message_event: asyncio.Event,
        scope: Any,  # noqa: ANN401 uvicorn's own type is a union of dicts
        *,
        keep_alive: bool,
    ) -> None:
        # uvicorn's own sets all of the above for each request.
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.default_headers = []
        self.message_event = message_event
        self.on_response = protocol.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = protocol.expect_100_continue

    async def receive(self) -> Any:  # noqa: ANN401 uvicorn's own type is a union of dicts
        """Return the next ASGI message of the request."""
        if self.taken and self.ended:
            return {"type": "http.disconnect"}
        if self.taken or self.more_body or self.waiting_for_100_continue or self.disconnected:
            if self._lost():
                return {"type": "http.disconnect"}
            message = await super().receive()
            self.taken = not message.get("more_body", False)
            return message
        # All of the body came with the head, as small ones do.
        self.taken = True
        self.message_event.clear()
        self.flow.resume_reading()
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def send(self, message: Any) -> None:  # noqa: ANN401 uvicorn's own type is a union of dicts
        """Take one ASGI message of the response."""
        if not self.response_started and message["type"] == "http.response.start":
            self.head = message
            self.response_started = True
            return
        if self._lost():
            return
        head = self.head
        if head is None:
            await super().send(message)
            return
        self.head = None
        if message.get("more_body", False) or self.scope["method"] == "HEAD":
            self.response_started = False
            if not self.keep_alive and CLOSE_HEADER not in head["headers"]:
                head = {**head, "headers": [*head["headers"], CLOSE_HEADER]}
            await super().send(head)
            await super().send(message)
            return
        if self.flow.write_paused:
            await self.flow.drain()
        if not self._lost():
            self._write(head["status"], head["headers"], message.get("body", b""))

    def _lost(self) -> bool:
        """Return whether nobody can be answered any more.

        Only the last request that came is told that its connection is lost. One that is being answered
        while others wait behind it sees it from the transport.
        """
        if self.transport.is_closing():
            self.disconnected = True
        return self.disconnected

    def caller_ended(self) -> None:
        """Take note that the caller sends nothing more: this is the connection's last request."""
        self.ended, self.keep_alive = True, False
        self.message_event.set()

    async def run_asgi(self, app: Any) -> None:  # noqa: ANN401 uvicorn's own type
        """Have `app` answer; of an error that it raises only the type and the place are logged.

        uvicorn logs the error's message too, which may quote what a caller sent. An application that
        takes a caller who closed its side for one that left, as streams do, owes it no answer.
        """
        failed = False
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 the last place before the socket
            failed = True
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            self.logger.error(  # noqa: TRY400 an exception's message may hold content
                "unforeseen %s at %s:%s",
                type(error),
                place.tb_frame.f_code if place else None,
                place.tb_lineno if place else 0,
            )
        try:
            if self.head is not None:
                # Of a response that was begun and not gone on with, nothing has been written yet.
                self.head, self.response_started = None, False
            if self.disconnected or self.response_complete:
                return
            if self.response_started or (self.ended and not failed):
                self.transport.close()
            else:
                await self.send_500_response()
        finally:
            self.on_response = _nothing

    def turn_away(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
        """Write the refusal of a request whose body is not looked at."""
        if self.disconnected or self.transport.is_closing():
            return
        closing = not self.keep_alive
        self.transport.write(_head(status, headers, closing) + body)
        self.response_complete = True
        if closing:
            self.transport.close()
        self.on_response()

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        parts = [STATUS_LINE[status]]
        # Who is told that this was the last answer sends no other request into a closed connection.
        closing = not self.keep_alive and CLOSE_HEADER not in headers
        for name, value in [*headers, CLOSE_HEADER] if closing else headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        content = b"".join(parts)
        if content.count(b"\n") != len(headers) + closing + 2:
            message = "a header holds a line break"
            raise RuntimeError(message)
        if len(body) <= COPIED_BYTES:
            self.transport.write(content + body)
        else:
            self.transport.writelines((content, body))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive or CLOSE_HEADER in headers:
            self.transport.close()
        self.on_response()


@lru_cache(maxsize=64)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...], closing: bool) -> bytes:
    fields = (*headers, CLOSE_HEADER) if closing else headers
    return STATUS_LINE[status] + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
