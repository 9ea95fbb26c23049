"""The node's own server: Open Inference Protocol v2 over REST, as a plain ASGI callable.

It takes requests from gateways only: where a shared secret is set, every request but a health probe
must bring it. It knows nothing of subjects or policies, and keeps nothing.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from inference_node.codec import decode_request, encode_response
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    NodeError,
    QueueFull,
)
from inference_node.node import Node
from inference_node.oip import ServerMetadata

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_OCTETS: Final = (b"content-type", b"application/octet-stream")
_STATUS: Final[dict[type[NodeError], int]] = {
    InputInvalid: 400,
    ModelUnknown: 404,
    QueueFull: 429,
    ExecutionFailed: 500,
    ModelNotReady: 503,
    DeadlineExceeded: 504,
}
_TOO_LARGE: Final = 413


class BodyTooLarge(NodeError):
    """Raised when a body is larger than the node's limit."""


class NodeServer:
    """Serves one node; give it to an ASGI server."""

    def __init__(self, node: Node, *, version: str, secret: str | None = None) -> None:
        self._node = node
        self._version = version
        self._secret = f"Bearer {secret}".encode() if secret is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            message = "the node serves plain HTTP only"
            raise AssertionError(message)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        parts: list[str] = scope["path"].split("/")[1:]
        if parts[:2] == ["v2", "health"] and scope["method"] == "GET":
            await _send(send, 200 if parts[2:] in (["live"], ["ready"]) else 404, [_JSON], b"{}")
            return
        if self._secret is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._secret
        ):
            await _send_error(send, 401, "the node's shared secret is missing or wrong")
            return
        try:
            await self._answer(scope["method"], parts, headers, receive, send)
        except BodyTooLarge as error:
            await _send_error(send, _TOO_LARGE, str(error))
        except NodeError as error:
            await _send_error(send, _STATUS.get(type(error), 500), str(error))

    async def _answer(
        self,
        method: str,
        parts: list[str],
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        match method, parts[1:] if parts[0] == "v2" else None:
            case "POST", ["models", name, "infer"]:
                await self._infer(name, None, headers, receive, send)
            case "POST", ["models", name, "versions", version, "infer"]:
                await self._infer(name, version, headers, receive, send)
            case "GET", ["models", name, "ready"]:
                self._node.metadata(name, None)
                await _send(send, 200, [_JSON], b"{}")
            case "GET", ["models", name, "versions", version, "ready"]:
                self._node.metadata(name, version)
                await _send(send, 200, [_JSON], b"{}")
            case "GET", ["models", name]:
                await _send_json(send, self._node.metadata(name, None))
            case "GET", ["models", name, "versions", version]:
                await _send_json(send, self._node.metadata(name, version))
            case "POST", ["repository", "index"]:
                await _send_json(send, self._node.index())
            case "GET", [] | [""]:
                metadata = ServerMetadata(
                    name="bedside-node",
                    version=self._version,
                    extensions=("binary_tensor_data", "model_repository"),
                )
                await _send_json(send, metadata)
            case _:
                await _send_error(send, 404, "see the Open Inference Protocol v2 for paths")

    async def _infer(
        self,
        name: str,
        version: str | None,
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        body = await self._body(headers, receive)
        length = headers.get(b"inference-header-content-length")
        if length is not None and not length.isdigit():
            raise InputInvalid("Inference-Header-Content-Length must be a number")
        request = decode_request(body, header_length=None if length is None else int(length))
        response = await self._node.infer(name, version, request)
        encoded, header_length = encode_response(response, request)
        if header_length is None:
            await _send(send, 200, [_JSON], encoded)
        else:
            extra = (b"inference-header-content-length", b"%d" % header_length)
            await _send(send, 200, [_OCTETS, extra], encoded)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._node.settings.body_limit_bytes
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise InputInvalid("Content-Length must be a number")
        body = bytearray()
        more = int(declared) <= limit
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False) and len(body) <= limit
        if int(declared) > limit or len(body) > limit:
            raise BodyTooLarge(f"the body is larger than the node's limit of {limit} bytes")
        return bytes(body)


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, value: object) -> None:
    await _send(send, 200, [_JSON], msgspec.json.encode(value))


async def _send_error(send: Send, status: int, message: str) -> None:
    await _send(send, status, [_JSON], msgspec.json.encode({"error": message}))
