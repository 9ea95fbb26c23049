"""Reads server-sent events as WHATWG HTML, section 9.2.6, has them.

Lines end in CR, LF or both. Comments, and blocks without data, are no events: servers and proxies send
them so that a connection does not look idle.
"""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Final

from inference_node.errors import NodeFailed

MESSAGE: Final = "message"

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = (b"\n", b"\r")


async def read_events(
    chunks: AsyncIterable[bytes], limit_bytes: int
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield the type and data of each event.

    Raises:
        NodeFailed: if an event is larger than `limit_bytes`, or the last one is not whole.
    """
    event = _Event(limit_bytes)
    async for line in _lines(chunks, limit_bytes):
        if line:
            event.take(line)
            continue
        if event.data is not None:
            yield event.kind or MESSAGE, b"\n".join(event.data)
        event = _Event(limit_bytes)
    if event.begun:
        raise _broken_off()


class _Event:
    """The lines since the last empty one; `data` is None until there is any."""

    def __init__(self, limit_bytes: int) -> None:
        self.kind = ""
        self.data: list[bytes] | None = None
        self.begun = False
        self._limit_bytes = self._left_bytes = limit_bytes

    def take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if not field:
            return
        self.begun = True
        value = value.removeprefix(b" ")
        if field == b"event":
            self.kind = value.decode("utf-8", "replace")
        elif field == b"data":
            self._left_bytes -= len(line) + 1
            if self._left_bytes < 0:
                raise _too_large(self._limit_bytes)
            if self.data is None:
                self.data = []
            self.data.append(value)


async def _lines(chunks: AsyncIterable[bytes], limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield each line without its end."""
    begun: list[bytes] = []
    begun_bytes, first, after_return = 0, True, False
    async for chunk in chunks:
        # What ends a line may be cut in two.
        lines = (chunk[1:] if after_return and chunk.startswith(b"\n") else chunk).splitlines(True)
        after_return = chunk.endswith(b"\r") or (after_return and not chunk)
        for line in lines:
            begun.append(line)
            begun_bytes += len(line)
            if begun_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            if not line.endswith(_LINE_ENDS):
                continue
            whole = b"".join(begun).rstrip(b"\r\n")
            begun, begun_bytes = [], 0
            yield whole.removeprefix(_BYTE_ORDER_MARK) if first else whole
            first = False
    if begun and not begun[0].startswith(b":"):
        raise _broken_off()


def _too_large(limit_bytes: int) -> NodeFailed:
    return NodeFailed(f"one of the node's answers is larger than {limit_bytes} bytes")


def _broken_off() -> NodeFailed:
    return NodeFailed("the node broke off in the middle of an answer")
