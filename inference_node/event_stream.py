"""Reads server-sent events (WHATWG HTML, section 9.2.6) as `inference_node.events` writes them."""

from collections.abc import AsyncGenerator, AsyncIterable

from inference_node.errors import NodeFailed

MESSAGE = "message"


async def read_events(
    chunks: AsyncIterable[bytes], limit_bytes: int
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield the type and data of each event.

    Raises:
        NodeFailed: if an event is larger than `limit_bytes`, or the last one is not whole.
    """
    buffer = bytearray()
    async for chunk in chunks:
        searched = max(len(buffer) - 1, 0)
        buffer += chunk
        while (end := buffer.find(b"\n\n", searched)) >= 0:
            event = bytes(buffer[:end])
            del buffer[: end + 2]
            searched = 0
            yield _event(event)
        if len(buffer) > limit_bytes:
            raise NodeFailed(f"one of the node's answers is larger than {limit_bytes} bytes")
    if buffer:
        raise NodeFailed("the node broke off in the middle of an answer")


def _event(event: bytes) -> tuple[str, bytes]:
    kind, data = MESSAGE, []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            kind = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    return kind, b"\n".join(data)
