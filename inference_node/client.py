"""A client for any Open Inference Protocol server, so that a gateway can use it as a node.

Which failures may be tried on another node is said in `inference_node.connection`. A node that
answers 429 or 503 (`QueueFull`, `ModelNotReady`) says itself that it did not begin.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec

from inference_node.connection import CONNECT_TIMEOUT_S, Answer, NodeConnection, is_encoded
from inference_node.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InputInvalid,
    ModelNotReady,
    ModelReplaced,
    ModelUnknown,
    NodeError,
    NodeFailed,
    NodeUnreachable,
    QueueFull,
)
from inference_node.event_stream import MESSAGE, read_events
from inference_node.foreign import (
    BINARY_EXTENSION,
    READY,
    STREAM_EXTENSION,
    checked,
    decode_config,
    decode_from,
    decode_index,
    decode_listing,
    decode_metadata,
    decode_statistics,
    encode_for,
)
from inference_node.oip import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
)
from inference_node.statistics import ModelStatistics
from inference_node.wire import DIGEST, MALFORMED, TIMEOUT, timeout_header

RESPONSE_LIMIT_BYTES: Final = 256 * 1024 * 1024
CONTROL_LIMIT_BYTES: Final = 4 * 1024 * 1024
PROBE_TIMEOUT_S: Final = 5.0
LOAD_TIMEOUT_S: Final = 300.0

_ERRORS: Final[dict[int, type[NodeError]]] = {
    400: InputInvalid,
    401: NodeUnreachable,
    403: NodeUnreachable,
    404: ModelUnknown,
    413: InputInvalid,
    422: InputInvalid,
    429: QueueFull,
    502: NodeFailed,
    503: ModelNotReady,
    504: DeadlineExceeded,
}
_OK: Final = 200
_ERRORS_FROM: Final = 400
_NOT_OFFERED: Final = (404, 405, 501)


class NodeClient:
    """Keeps connections to one node, over TCP (`http://host:port`) or a Unix socket (`unix:/path`).

    `models` are names to look for on a server that cannot list what it serves.
    """

    def __init__(self, url: str, *, secret: str | None = None, models: Sequence[str] = ()) -> None:
        self._connection = NodeConnection(url, secret)
        self._models = tuple(models)
        self._binary: bool | None = None
        self._streams = False

    async def infer(
        self,
        name: str,
        version: str | None,
        request: InferRequest,
        *,
        timeout_s: float,
        digest: str | None = None,
        outputs: Sequence[TensorMetadata] = (),
        derived: Sequence[TensorMetadata] = (),
        rows: int | None = None,
    ) -> InferResponse:
        """Have the node run one request; `outputs` is what the model declares that it gives.

        `derived` are outputs that the request's parameters ask for besides. `digest` is that of the
        file that is expected to run: our own nodes run no other, others do not look at it. Shapes are
        held against `outputs` and, where the model batches, `rows`, but for our own nodes, which give
        what their models gave.

        Raises:
            NodeUnreachable: if it is certain that nothing began, so that another may be tried.
            QueueFull, ModelNotReady: if the node says that it did not begin.
            ModelReplaced: likewise, as a file of another digest serves there.
            NodeFailed: if it was sent the request and no valid answer came.
            NodeError: the node's own answer, as the class it would raise in this process.
        """
        if self._binary is None:
            await self._learn()
        body, header_length = encode_for(request, binary=self._binary is True)
        path = f"{_path(name, version)}/infer"
        status, answered, content = await self._connection.call(
            "POST",
            path,
            body,
            _headers(header_length, timeout_s, digest),
            timeout_s=timeout_s,
            limit_bytes=RESPONSE_LIMIT_BYTES,
        )
        if status != _OK:
            raise _refused(status, answered)
        response = decode_from(content, answered.get("Inference-Header-Content-Length"))
        return checked(
            response,
            request,
            name=name,
            version=version,
            outputs=outputs,
            derived=derived,
            shapes=digest is None,
            rows=rows,
        )

    async def stream(
        self,
        name: str,
        version: str | None,
        request: InferRequest,
        *,
        timeout_s: float,
        total_s: float | None = None,
        digest: str | None = None,
        outputs: Sequence[TensorMetadata] = (),
        derived: Sequence[TensorMetadata] = (),
        rows: int | None = None,
    ) -> AsyncGenerator[InferResponse, None]:
        """Have the node run one request and yield each response, as it comes.

        A response may take `timeout_s`, all of them together `total_s`. A server that does not offer
        streams is asked for its one response, which alone has to have `rows`. Closing the generator
        ends the work at the node.

        Raises:
            NodeError: as `infer`; after the first response NodeFailed if the node broke off, and
                ExecutionFailed if it says that it failed.
        """
        if self._binary is None:
            await self._learn()
        if not self._streams:
            only = await self.infer(
                name,
                version,
                request,
                timeout_s=min(timeout_s, total_s or timeout_s),
                digest=digest,
                outputs=outputs,
                derived=derived,
                rows=rows,
            )
            only.parameters = {**only.parameters, "triton_final_response": True}
            yield only
            return
        body, header_length = encode_for(request, binary=self._binary is True)
        timeout = aiohttp.ClientTimeout(
            total=total_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=timeout_s
        )
        path = f"{_path(name, version)}/infer_stream"
        headers = _headers(header_length, total_s, digest)
        now = asyncio.get_running_loop().time
        due = now() + timeout_s
        async with self._connection.request(
            "POST", path, body, headers, timeout=timeout, due=due
        ) as response:
            if response.status != _OK:
                raise _refused(response.status, response.headers)
            if response.content_type != "text/event-stream" or is_encoded(response):
                raise NodeFailed("the node's answer is not a stream of events")
            events = read_events(response.content.iter_any(), RESPONSE_LIMIT_BYTES)
            async with contextlib.aclosing(events):
                while True:
                    # A server that drips comments, or bytes of an event, has not answered.
                    async with asyncio.timeout_at(due):
                        event = await anext(events, None)
                    if event is None:
                        return
                    kind, data = event
                    if kind != MESSAGE:
                        # Only that it failed is believed: its words may quote what it was sent.
                        raise ExecutionFailed("the node failed in the middle of a stream")
                    yield checked(
                        decode_from(data, None),
                        request,
                        name=name,
                        version=version,
                        outputs=outputs,
                        derived=derived,
                        shapes=digest is None,
                    )
                    due = now() + timeout_s

    async def server(self) -> ServerMetadata:
        """Return what the node is; whether it takes binary tensors is learned from it."""
        content = await self._read("GET", "/v2")
        try:
            metadata = msgspec.json.decode(content, type=ServerMetadata)
        except MALFORMED as error:
            raise NodeFailed("the node's answer is not a server's metadata") from error
        self._binary = BINARY_EXTENSION in metadata.extensions
        self._streams = STREAM_EXTENSION in metadata.extensions
        return metadata

    async def ready(self) -> bool:
        """Say whether the node is ready; raises NodeUnreachable if it is not there at all."""
        return await self._confirms("/v2/health/ready")

    async def model_ready(self, name: str, version: str | None) -> bool:
        """Say whether the node is ready to run a model."""
        return await self._confirms(f"{_path(name, version)}/ready")

    async def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Return what a model of the node takes and gives."""
        return decode_metadata(await self._read("GET", _path(name, version)), name)

    async def config(self, name: str, version: str | None) -> dict[str, Any]:
        """Return a model's configuration under Triton's names (model configuration extension).

        Raises:
            ModelUnknown: if there is no such model, or the node does not tell.
        """
        return decode_config(await self._read("GET", f"{_path(name, version)}/config"), name)

    async def statistics(
        self, name: str | None = None, version: str | None = None
    ) -> list[ModelStatistics]:
        """Return the node's statistics of all models, of those of a name, or of one version.

        Raises:
            ModelUnknown: if there is no such model, or the node keeps none.
        """
        path = "/v2/models/stats" if name is None else f"{_path(name, version)}/stats"
        return decode_statistics(await self._read("GET", path))

    async def load(self, name: str) -> None:
        """Have the node load a model, or load it again (model repository extension)."""
        await self._change(name, "load")

    async def unload(self, name: str) -> None:
        """Have the node let go of a model (model repository extension)."""
        await self._change(name, "unload")

    async def index(self) -> list[RepositoryEntry]:
        """Return what the node serves (model repository extension).

        A server without the extension is asked for KServe's list of models, or else for each of the
        names that were configured.
        """
        await self._learn()
        status, _, content = await self._control("POST", "/v2/repository/index", b"{}")
        if status == _OK:
            entries = decode_index(content)
            return [
                entry if entry.state else await self._entry(entry.name, entry.version)
                for entry in entries
            ]
        if status not in _NOT_OFFERED:
            raise _error(status)
        names = self._models or await self._listed()
        return [await self._entry(name, "") for name in names]

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _learn(self) -> None:
        """Find out whether the node takes binary tensors; one that does not say so gets JSON."""
        try:
            await self.server()
        except (ExecutionFailed, InputInvalid, ModelUnknown, NodeFailed):
            self._binary = self._streams = False

    async def _listed(self) -> tuple[str, ...]:
        status, _, content = await self._control("GET", "/v2/models")
        if status == _OK:
            return decode_listing(content)
        if status in _NOT_OFFERED:
            return ()
        raise _error(status)

    async def _entry(self, name: str, version: str) -> RepositoryEntry:
        ready = await self.model_ready(name, version or None)
        return RepositoryEntry(name=name, version=version, state=READY if ready else "UNAVAILABLE")

    async def _change(self, name: str, what: str) -> None:
        path = f"/v2/repository/models/{quote(name, safe='')}/{what}"
        status, _, _ = await self._control("POST", path, b"{}", timeout_s=LOAD_TIMEOUT_S)
        if status != _OK:
            raise _error(status)

    async def _confirms(self, path: str) -> bool:
        status, _, _ = await self._control("GET", path)
        return status == _OK

    async def _read(self, method: str, path: str) -> bytes:
        status, _, content = await self._control(method, path)
        if status != _OK:
            raise _error(status)
        return content

    async def _control(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float = PROBE_TIMEOUT_S,
    ) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        return await self._connection.call(
            method, path, body, headers, timeout_s=timeout_s, limit_bytes=CONTROL_LIMIT_BYTES
        )


def _headers(header_length: int | None, timeout_s: float | None, digest: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if header_length is not None:
        headers["Content-Type"] = "application/octet-stream"
        headers["Inference-Header-Content-Length"] = str(header_length)
    if timeout_s is not None:
        # What nobody waits for any more is not begun: our own nodes heed it, others ignore it.
        headers[TIMEOUT] = timeout_header(timeout_s)
    if digest is not None:
        headers[DIGEST] = digest
    return headers


def _path(name: str, version: str | None) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _refused(status: int, headers: Mapping[str, str]) -> NodeError:
    """Return what a node's refusal to run a request says."""
    error = _error(status)
    if isinstance(error, ModelNotReady) and DIGEST in headers:
        return ModelReplaced(headers[DIGEST])
    return error


def _error(status: int) -> NodeError:
    # Only the status is believed: a server's own words may quote what it was sent.
    # A redirect, as the 502 of a proxy, is nothing that a model says.
    kind = _ERRORS.get(status, ExecutionFailed if status >= _ERRORS_FROM else NodeFailed)
    if kind is InputInvalid:
        return InputInvalid("the inputs do not fit the model")
    if kind is NodeUnreachable:
        return NodeUnreachable("the node refuses the gateway: is its shared secret right?")
    return kind(f"the node answered with status {status}")
