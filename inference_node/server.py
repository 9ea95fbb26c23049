"""The node's own server: Open Inference Protocol v2 over REST, as a plain ASGI callable.

It takes requests from gateways only: where a shared secret is set, every request but a health probe
must bring it. It knows nothing of subjects or policies, and keeps nothing.
"""

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from prometheus_client.registry import Collector

from inference_node.codec import decode_request, encode_response
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelReplaced,
    ModelUnknown,
    NodeError,
    QueueFull,
)
from inference_node.events import send_events
from inference_node.metrics import CONTENT_TYPE, NodeCollector, exposition
from inference_node.node import Node
from inference_node.oip import InferRequest, ServerMetadata
from inference_node.wire import DIGEST, MALFORMED, TIMEOUT, stated_length, stated_timeout_s

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
_TIMEOUT: Final = TIMEOUT.lower().encode()
_DIGEST: Final = DIGEST.lower().encode()
_BOOLEAN: Final = (b"false", b"true")
_NO_SUCH_PATH: Final = "see the Open Inference Protocol v2 for paths"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "infer_stream",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)


class _Managed(Struct):
    ready: bool | None = False
    parameters: dict[str, Any] | None = None


class BodyTooLarge(NodeError):
    """Raised when a body is larger than the node's limit."""


class CallerGone(Exception):
    """Raised when the caller hung up before its body was read: there is nobody to answer."""


class NodeServer:
    """Serves one node; give it to an ASGI server."""

    def __init__(
        self,
        node: Node,
        *,
        version: str,
        secret: str | None = None,
        exposed: Callable[[Sequence[Collector]], tuple[Collector, ...]] = tuple,
    ) -> None:
        """Serve `node`; a scrape is answered with what `exposed` lets out of its metrics."""
        self._node = node
        self._collectors = exposed([NodeCollector(node)])
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
            await self._health(parts[2:], send)
            return
        if self._secret is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._secret
        ):
            await _send_error(send, 401, "the node's shared secret is missing or wrong")
            return
        if parts == ["metrics"] and scope["method"] == "GET":
            body = exposition(self._collectors)
            await _send(send, 200, [(b"content-type", CONTENT_TYPE)], body)
            return
        try:
            await self._answer(scope["method"], parts, headers, receive, send)
        except BodyTooLarge as error:
            await _send_error(send, _TOO_LARGE, str(error))
        except CallerGone:
            return
        except ModelReplaced as error:
            await _send_error(send, 503, str(error), (_DIGEST, error.digest.encode()))
        except NodeError as error:
            await _send_error(send, _STATUS.get(type(error), 500), str(error))

    async def _health(self, parts: list[str], send: Send) -> None:
        if parts == ["live"]:
            await _send(send, 200, [_JSON], b"{}")
        elif parts == ["ready"]:
            ready = self._node.ready
            await _send(send, 200 if ready else 503, [_JSON], b'{"ready":%s}' % _BOOLEAN[ready])
        else:
            await _send(send, 404, [_JSON], b"{}")

    async def _answer(
        self,
        method: str,
        parts: list[str],
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        # `OPTIONS *` names no path, so there may be no parts at all.
        match method, parts[1:] if parts[:1] == ["v2"] else None:
            case "POST", ["models", name, "infer"]:
                await self._infer(name, None, headers, receive, send)
            case "POST", ["models", name, "versions", version, "infer"]:
                await self._infer(name, version, headers, receive, send)
            case "POST", ["models", name, "infer_stream"]:
                await self._stream(name, None, headers, receive, send)
            case "POST", ["models", name, "versions", version, "infer_stream"]:
                await self._stream(name, version, headers, receive, send)
            case "POST", ["repository", *rest]:
                await self._manage(rest, headers, receive, send)
            case "GET", [] | [""]:
                metadata = ServerMetadata(
                    name="bedside-node", version=self._version, extensions=EXTENSIONS
                )
                await _send_json(send, metadata)
            case "GET", ["models", "stats"]:
                await _send_json(send, {"model_stats": self._node.statistics()})
            case "GET", ["models", name, *rest]:
                await self._describe(name, rest, send)
            case _:
                await _send_error(send, 404, _NO_SUCH_PATH)

    async def _describe(self, name: str, rest: list[str], send: Send) -> None:
        version, rest = (
            (rest[1], rest[2:]) if rest[:1] == ["versions"] and len(rest) > 1 else (None, rest)
        )
        match rest:
            case []:
                await _send_json(send, self._node.metadata(name, version))
            case ["ready"]:
                self._node.metadata(name, version)
                await _send(send, 200, [_JSON], b"{}")
            case ["config"]:
                await _send_json(send, self._node.config(name, version))
            case ["stats"]:
                await _send_json(send, {"model_stats": self._node.statistics(name, version)})
            case _:
                await _send_error(send, 404, _NO_SUCH_PATH)

    async def _manage(
        self, rest: list[str], headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        body = await self._body(headers, receive)
        try:
            asked = msgspec.json.decode(body, type=_Managed) if body else _Managed()
        except MALFORMED as error:
            raise InputInvalid("the body is not JSON of the model repository extension") from error
        match rest:
            case ["index"]:
                index = self._node.index()
                await _send_json(send, [e for e in index if e.state == "READY" or not asked.ready])
            case ["models", name, "load"]:
                if asked.parameters:
                    # A configuration or a file of the request's own would serve what nobody released.
                    raise InputInvalid("a model is loaded as it is on disk, without parameters")
                await self._node.load(name)
                await _send(send, 200, [_JSON], b"{}")
            case ["models", name, "unload"]:
                await self._node.unload(name)
                await _send(send, 200, [_JSON], b"{}")
            case _:
                await _send_error(send, 404, _NO_SUCH_PATH)

    async def _stream(
        self,
        name: str,
        version: str | None,
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        deadline = _deadline(headers)
        request = await self._request(headers, receive)
        request.binary_output = False
        for output in request.outputs:
            output.binary = False
        responses = self._node.stream(name, version, request, deadline, digest=_digest(headers))
        await send_events(responses, request, receive, send)

    async def _request(self, headers: dict[bytes, bytes], receive: Receive) -> InferRequest:
        body = await self._body(headers, receive)
        length = headers.get(b"inference-header-content-length")
        return decode_request(
            body, header_length=stated_length(length, "Inference-Header-Content-Length")
        )

    async def _infer(
        self,
        name: str,
        version: str | None,
        headers: dict[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        deadline = _deadline(headers)
        request = await self._request(headers, receive)
        response = await self._node.infer(name, version, request, deadline, digest=_digest(headers))
        encoded, header_length = encode_response(response, request)
        if header_length is None:
            await _send(send, 200, [_JSON], encoded)
        else:
            extra = (b"inference-header-content-length", b"%d" % header_length)
            await _send(send, 200, [_OCTETS, extra], encoded)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._node.settings.body_limit_bytes
        declared = stated_length(headers.get(b"content-length"), "Content-Length") or 0
        body = bytearray()
        more = declared <= limit
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise CallerGone
            body += event.get("body", b"")
            more = event.get("more_body", False) and len(body) <= limit
        if declared > limit or len(body) > limit:
            raise BodyTooLarge(f"the body is larger than the node's limit of {limit} bytes")
        return bytes(body)


def _deadline(headers: dict[bytes, bytes]) -> float | None:
    """Return when nobody waits for the answer any more, counted from when the request's head came."""
    timeout_s = stated_timeout_s(headers.get(_TIMEOUT))
    return None if timeout_s is None else time.monotonic() + timeout_s


def _digest(headers: dict[bytes, bytes]) -> str | None:
    """Return the digest of the file that a gateway expects to run; None runs whichever serves."""
    stated = headers.get(_DIGEST)
    return None if stated is None else stated.decode("latin-1")


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, value: object) -> None:
    await _send(send, 200, [_JSON], msgspec.json.encode(value))


async def _send_error(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    await _send(send, status, [_JSON, *headers], msgspec.json.encode({"error": message}))
