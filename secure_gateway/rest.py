"""Open Inference Protocol v2 over REST, as a plain ASGI callable.

Facts travel as headers (`Bedside-Subject`, `Bedside-Data-Class`, ...), so any client of the protocol
can send them. Health and server metadata are open, as probes expect; everything else goes through
the pipeline.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Final

from msgspec.structs import replace

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InferRequest, decode_request
from secure_gateway import encodings, respond
from secure_gateway.asgi import (
    ABANDONABLE,
    NOTES,
    ClientGone,
    Receive,
    Scope,
    Send,
    length_of,
    read_body,
    send_response,
    while_connected,
)
from secure_gateway.claims import TIMEOUT, claims_of, deadline_of, refuse_repeated
from secure_gateway.errors import Refusal
from secure_gateway.events import send_stream
from secure_gateway.exchange import Answer, Call
from secure_gateway.gateway import Gateway
from secure_gateway.respond import Http
from secure_gateway.rest_models import EXTENSIONS, ModelRoutes

__all__ = ["EXTENSIONS", "RestApi"]

_ERRORS_FROM: Final = 400

# Under which name the notes of a head keep its fields and the call that they make.
_INFER: Final = "infer"

_NOTHING: Final[Mapping[str, Http]] = {}


class RestApi:
    """Serves `/v2` of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._pipeline = gateway.pipeline
        self._body_limit_bytes = gateway.settings.body_limit_bytes
        self._models = ModelRoutes(gateway)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request under `/v2`.

        What needs no coroutine of its own is none: those of a request that waits are resumed one
        through the other.
        """
        if NOTES in scope and _INFER in scope[NOTES]:
            headers, call = scope[NOTES][_INFER]
            return self._serve(scope, receive, send, headers, _begun(call, headers))
        return self._dispatch(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        # "/v2/models/<name>/infer" and "/v2/models/<name>/versions/<version>/infer"
        match parts := scope["path"].split("/")[2:]:
            case ["models", name, "infer"]:
                await self._infer(scope, receive, send, name, None)
            case ["models", name, "versions", version, "infer"]:
                await self._infer(scope, receive, send, name, version)
            case ["models", name, "infer_stream"]:
                await self._stream(scope, receive, send, name, None)
            case ["models", name, "versions", version, "infer_stream"]:
                await self._stream(scope, receive, send, name, version)
            case _:
                await self._models(scope, receive, send, parts)

    async def _infer(
        self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None
    ) -> None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw)
        call = _call(Action.INFER, headers, name, version)
        try:
            call = _checked(call, scope, raw, headers)
        except Refusal as refusal:
            await _answer(send, self._pipeline.refuse(call, refusal), headers)
            return
        if NOTES in scope:
            scope[NOTES][_INFER] = headers, call
        await self._serve(scope, receive, send, headers, call)

    def _serve(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], call: Call
    ) -> Awaitable[None]:
        body = b""

        async def arrive() -> None:
            nonlocal body
            body = await read_body(receive, headers.get(b"content-length"), self._body_limit_bytes)
            scope[ABANDONABLE] = True
            if b"content-encoding" in headers:
                body = await self._expanded(body, headers)

        def decode() -> InferRequest:
            return _decoded(body, headers)

        # Encoded while the record is being written, and sent once it is there.
        prepared: dict[str, Http] = {}

        def prepare(answer: Answer) -> None:
            prepared[answer.record] = respond.http(answer)

        serving = self._pipeline.serve(call, decode, arrive, prepare)
        return _answer(send, serving, headers, prepared)

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None
    ) -> None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw)
        call = _call(Action.STREAM, headers, name, version)
        try:
            call = _checked(call, scope, raw, headers)
        except Refusal as refusal:
            await _answer(send, self._pipeline.refuse(call, refusal), headers)
            return
        body = b""
        arrived = asyncio.Event()

        async def arrive() -> None:
            nonlocal body
            body = await read_body(receive, headers.get(b"content-length"), self._body_limit_bytes)
            arrived.set()
            if b"content-encoding" in headers:
                body = await self._expanded(body, headers)

        def decode() -> InferRequest:
            # An event is text: what was asked for in binary is given in JSON.
            request = _decoded(body, headers)
            request.binary_output = False
            for output in request.outputs:
                output.binary = False
            return request

        async def serve() -> None:
            try:
                answer = await self._pipeline.stream(call, decode, arrive)
            except ClientGone:
                return
            except LogUnavailable:
                await send_response(send, *respond.for_oip(respond.log_unavailable()))
                return
            if answer.responses is None:
                await send_response(send, *respond.for_oip(respond.http(answer)))
            else:
                await send_stream(send, answer, answer.responses)

        await while_connected(receive, serve(), arrived)

    def _expanded(self, body: bytes, headers: dict[bytes, bytes]) -> Awaitable[bytes]:
        return encodings.plain(body, headers[b"content-encoding"], self._body_limit_bytes)


def _call(action: Action, headers: dict[bytes, bytes], name: str, version: str | None) -> Call:
    return Call(
        action=action,
        authorization=headers.get(b"authorization"),
        claims=claims_of(headers),
        started_ns=time.monotonic_ns(),
        model=name,
        version=version,
        wants_text=True,
    )


def _begun(call: Call, headers: dict[bytes, bytes]) -> Call:
    """Return the call that another request with the same head is: only its times are its own."""
    started_ns = time.monotonic_ns()
    if TIMEOUT not in headers:
        return replace(call, started_ns=started_ns)
    deadline = deadline_of(headers[TIMEOUT], started_ns / 1e9)
    return replace(call, started_ns=started_ns, deadline=deadline)


def _checked(
    call: Call, scope: Scope, raw: list[tuple[bytes, bytes]], headers: dict[bytes, bytes]
) -> Call:
    """Return the call with its deadline, once its method and headers have one meaning."""
    if scope["method"] != "POST":
        raise Refusal(Problem.METHOD_NOT_ALLOWED, "Inference is asked for with POST.", allow=("POST",))
    if len(headers) != len(raw):
        refuse_repeated(raw)
    if TIMEOUT not in headers:
        return call
    return replace(call, deadline=deadline_of(headers[TIMEOUT], call.started_ns / 1e9))


def _decoded(body: bytes, headers: dict[bytes, bytes]) -> InferRequest:
    stated = headers.get(b"inference-header-content-length")
    length = length_of(stated, "Inference-Header-Content-Length")
    return decode_request(body, header_length=length)


async def _answer(
    send: Send,
    answering: Awaitable[Answer],
    headers: dict[bytes, bytes],
    prepared: Mapping[str, Http] = _NOTHING,
) -> None:
    try:
        answer = await answering
    except ClientGone:
        return
    except LogUnavailable:
        await send_response(send, *respond.for_oip(respond.log_unavailable()))
        return
    status, fields, body = prepared.get(answer.record) or respond.http(answer)
    if status >= _ERRORS_FROM:
        status, fields, body = respond.for_oip((status, fields, body))
    if b"accept-encoding" in headers and len(body) >= encodings.COMPRESSED_FROM_BYTES:
        coding = encodings.chosen(headers[b"accept-encoding"])
        if coding is not None:
            body = await encodings.compressed(body, coding)
            fields += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
    await send_response(send, status, fields, body)
