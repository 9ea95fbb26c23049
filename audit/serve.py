"""A log over HTTP, read-only, as C2SP tlog-tiles has it: `/checkpoint` and `/tile/...`.

`/minimum-index` is there beside them once the log was pruned: how that is said, the specification
leaves open.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from audit.log import Log
from audit.minimum import FILE
from audit.tiles import parse_tile_path

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_OCTETS: Final = (b"content-type", b"application/octet-stream")
_FRESH: Final = (b"cache-control", b"no-store")
_FOREVER: Final = (b"cache-control", b"public, max-age=31536000, immutable")


def serve_log(log: Log, *, prefix: str = "") -> Application:
    """Return an ASGI application that serves `log` under `prefix`; it takes HTTP requests only.

    What a tile's path names never changes, whole or partial: tiles may be cached for ever, the
    checkpoint not at all. A path that is not exactly a tile's never reaches the file system.
    """

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(prefix).removeprefix("/")
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, [_TEXT, (b"allow", b"GET, HEAD")], b"read only\n")
        elif path == "checkpoint":
            published = log.published
            if published is None:
                await _send(send, 404, [_TEXT, _FRESH], b"no witnesses saw a checkpoint yet\n")
            else:
                await _send(send, 200, [_TEXT, _FRESH], published.note)
        elif path == FILE:
            if log.minimum.note:
                await _send(send, 200, [_TEXT, _FRESH], log.minimum.note)
            else:
                await _send(send, 404, [_TEXT, _FRESH], b"nothing was pruned\n")
        else:
            await _send_tile(log, path, send)

    return app


async def _send_tile(log: Log, path: str, send: Send) -> None:
    tile = parse_tile_path(path)
    # On the event loop on purpose: the tree's edge belongs to it, and a tile is one small file.
    data = None if tile is None else log.tile(*tile)
    if tile is not None and tile[0] is None and log.pruned(tile[1]):
        await _send(send, 410, [_TEXT], b"pruned: see /minimum-index\n")
        return
    if tile is None or data is None:
        await _send(send, 404, [_TEXT], b"no such tile\n")
        return
    await _send(send, 200, [_OCTETS, _FOREVER], data)


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
