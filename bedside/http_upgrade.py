"""What becomes of a request that offers another protocol: WebSocket is taken up, anything else is not.

Many clients offer HTTP/2 with their first request, and send a body with it. A server may pass over the
offer and answer in HTTP/1.1 (RFC 9110 section 7.8). httptools takes the connection for another
protocol's from the end of the head on, whatever was offered: the body would be lost, or read as the
next request. So the head is read a second time, without the offer.
"""

import re
from typing import Final

import httptools

from bedside.http_deadline import DeadlineProtocol

# 16 bytes in base64 (RFC 6455 section 4.1).
WEBSOCKET_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
NOT_OFFERED: Final = (b"sec-websocket-extensions", b"sec-websocket-protocol")

_OFFER: Final = b"upgrade"


class UpgradeProtocol(DeadlineProtocol):
    """Reads requests, and hands a connection over to WebSocket where that is offered and served."""

    def feed(self, data: bytes) -> bool:
        """Have the parser read `data`; return whether a WebSocket begins behind the head it has read.

        Raises:
            httptools.HttpParserError: if it is not HTTP, or a request breaks a rule of ours.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self._should_upgrade():
                    return True
                # What follows the head in what came is its body, or the next request.
                (read,) = offer.args
                data = self._head_without_offer() + data[read:]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return False

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol, which has time limits of its own.

        Extensions and subprotocols are not offered: nothing needs them, and a compressed frame may be
        a bomb.
        """
        self._disarm()
        self.headers[:] = [field for field in self.headers if field[0] not in NOT_OFFERED]
        super().handle_websocket_upgrade()

    def _offers_well(self) -> bool:
        """Whether a WebSocket is offered as it must be; its own refusals would quote what was sent."""
        fields = dict(self.headers)
        return (
            fields.get(b"sec-websocket-version") == b"13"
            and WEBSOCKET_KEY.fullmatch(fields.get(b"sec-websocket-key", b"")) is not None
            and self.scope["method"] == "GET"
        )

    def _head_without_offer(self) -> bytes:
        line = b"%s %s HTTP/%s\r\n" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        kept = [b"%s: %s\r\n" % field for field in self.headers if field[0] != _OFFER]
        return b"".join((line, *kept, b"\r\n"))
