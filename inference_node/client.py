"""A client for any Open Inference Protocol server, so that a gateway can use it as a node."""

from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec

from inference_node.codec import decode_response, encode_request
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeUnreachable,
    QueueFull,
)
from inference_node.oip import InferRequest, InferResponse, ModelMetadata, RepositoryEntry

UNIX: Final = "unix:"
RESPONSE_LIMIT_BYTES: Final = 256 * 1024 * 1024
PROBE_TIMEOUT_S: Final = 5.0

_ERRORS: Final[dict[int, type[NodeError]]] = {
    400: InputInvalid,
    404: ModelUnknown,
    429: QueueFull,
    503: ModelNotReady,
    504: DeadlineExceeded,
}
_OK: Final = 200


class NodeClient:
    """Keeps connections to one node, over TCP (`http://host:port`) or a Unix socket (`unix:/path`)."""

    def __init__(self, url: str, *, secret: str | None = None) -> None:
        if url.startswith(UNIX):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(url.removeprefix(UNIX), limit=0)
            self._base = "http://node"
        else:
            connector = aiohttp.TCPConnector(limit=0)
            self._base = url.rstrip("/")
        headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, auto_decompress=False
        )

    async def infer(
        self, name: str, version: str | None, request: InferRequest, *, timeout_s: float
    ) -> InferResponse:
        """Have the node run one request.

        Raises:
            NodeUnreachable: if the node did not take it, so that another may be tried.
            NodeFailed: if it took it and no valid answer came.
            NodeError: the node's own answer, as the class it would raise in this process.
        """
        body, header_length = encode_request(request)
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(header_length),
        }
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "") + "/infer"
        status, answered, content = await self._call("POST", path, body, headers, timeout_s)
        if status != _OK:
            raise _error(status)
        length = answered.get("Inference-Header-Content-Length")
        try:
            return decode_response(content, header_length=int(length) if length else None)
        except (InputInvalid, ValueError) as error:
            raise NodeFailed("the node's answer is not an inference response") from error

    async def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Return what a model of the node takes and gives."""
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        status, _, content = await self._call("GET", path, None, {}, PROBE_TIMEOUT_S)
        if status != _OK:
            raise _error(status)
        try:
            return msgspec.json.decode(content, type=ModelMetadata)
        except msgspec.MsgspecError as error:
            raise NodeFailed("the node's answer is not a model's metadata") from error

    async def index(self) -> list[RepositoryEntry]:
        """Return what the node serves (model repository extension)."""
        status, _, content = await self._call(
            "POST", "/v2/repository/index", b"{}", {}, PROBE_TIMEOUT_S
        )
        if status != _OK:
            raise _error(status)
        try:
            return msgspec.json.decode(content, type=list[RepositoryEntry])
        except msgspec.MsgspecError as error:
            raise NodeFailed("the node's answer is not a repository index") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                content = await response.read()
                return response.status, response.headers, content
        except aiohttp.ClientConnectorError as error:
            raise NodeUnreachable("the node does not answer") from error
        except TimeoutError as error:
            raise DeadlineExceeded("the node did not answer in time") from error
        except aiohttp.ClientError as error:
            raise NodeFailed("the connection to the node broke") from error


def _error(status: int) -> NodeError:
    # Only the status is believed: a server's own words may quote what it was sent.
    kind = _ERRORS.get(status, ExecutionFailed)
    if kind is InputInvalid:
        return InputInvalid("the inputs do not fit the model")
    return kind(f"the node answered with status {status}")
