"""Open Inference Protocol v2 over REST, as a plain ASGI callable.

Facts travel as headers (`Bedside-Subject`, `Bedside-Data-Class`, ...), so any client of the protocol
can send them. Health and server metadata are open, as probes expect; everything else goes through
the pipeline.
"""

import time
from collections.abc import Awaitable
from functools import partial

import msgspec

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import ServerMetadata, decode_request
from policies import ApiAction
from secure_gateway import respond
from secure_gateway.asgi import ClientGone, Receive, Scope, Send, read_body, send_response
from secure_gateway.claims import claims_of, refuse_repeated
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call
from secure_gateway.gateway import Gateway
from secure_gateway.version import VERSION

JSON = [(b"content-type", b"application/json")]
EXTENSIONS = ("binary_tensor_data",)


class RestApi:
    """Serves `/v2` of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._pipeline = gateway.pipeline
        self._body_limit_bytes = gateway.settings.body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request under `/v2`."""
        # "/v2/models/<name>/infer" and "/v2/models/<name>/versions/<version>/infer"
        match scope["path"].split("/")[2:]:
            case ["models", name, "infer"]:
                await self._infer(scope, receive, send, name, None)
            case ["models", name, "versions", version, "infer"]:
                await self._infer(scope, receive, send, name, version)
            case ["models", name]:
                await self._model(scope, send, name, None)
            case ["models", name, "versions", version]:
                await self._model(scope, send, name, version)
            case ["models", name, "ready"]:
                await self._model(scope, send, name, None, only_ready=True)
            case ["models", name, "versions", version, "ready"]:
                await self._model(scope, send, name, version, only_ready=True)
            case ["health", "live"]:
                await send_response(send, 200, JSON, b"{}")
            case ["health", "ready"]:
                await send_response(send, 200 if self._gateway.ready else 503, JSON, b"{}")
            case [] | [""]:
                metadata = ServerMetadata(name="bedside", version=VERSION, extensions=EXTENSIONS)
                await send_response(send, 200, JSON, msgspec.json.encode(metadata))
            case _:
                call = self._call(scope, Action.INFER, None, None)
                refusal = Refusal(Problem.NOT_FOUND, "See the Open Inference Protocol v2 for paths.")
                await self._answer(send, self._pipeline.refuse(call, refusal))

    def _call(self, scope: Scope, action: Action, name: str | None, version: str | None) -> Call:
        headers = dict(scope["headers"])
        return Call(
            action=action,
            authorization=headers.get(b"authorization"),
            claims=claims_of(headers),
            started_ns=time.monotonic_ns(),
            model=name,
            version=version,
        )

    async def _infer(
        self, scope: Scope, receive: Receive, send: Send, name: str, version: str | None
    ) -> None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw)
        call = Call(
            action=Action.INFER,
            authorization=headers.get(b"authorization"),
            claims=claims_of(headers),
            started_ns=time.monotonic_ns(),
            model=name,
            version=version,
        )
        try:
            if scope["method"] != "POST":
                raise Refusal(Problem.METHOD_NOT_ALLOWED, "Inference is asked for with POST.")
            if len(headers) != len(raw):
                refuse_repeated(raw)
            body = await read_body(receive, headers.get(b"content-length"), self._body_limit_bytes)
            header_length = _header_length(headers.get(b"inference-header-content-length"))
        except ClientGone:
            return
        except Refusal as refusal:
            await self._answer(send, self._pipeline.refuse(call, refusal))
            return
        decode = partial(decode_request, body, header_length=header_length)
        await self._answer(send, self._pipeline.serve(call, decode))

    async def _model(
        self,
        scope: Scope,
        send: Send,
        name: str,
        version: str | None,
        *,
        only_ready: bool = False,
    ) -> None:
        call = self._call(scope, Action.MODELS, name, version)
        if scope["method"] != "GET":
            refusal = Refusal(Problem.METHOD_NOT_ALLOWED, "Models are read with GET.")
            await self._answer(send, self._pipeline.refuse(call, refusal))
            return
        try:
            answer = await self._pipeline.authorize(call, ApiAction.MODELS_READ)
        except LogUnavailable:
            await send_response(send, *respond.log_unavailable())
            return
        model = answer.exchange.model
        if answer.exchange.refusal is not None or model is None:
            await send_response(send, *respond.http(answer))
        elif only_ready:
            await send_response(send, 200, JSON, b"{}")
        else:
            metadata = await self._gateway.metadata(model)
            await send_response(send, 200, JSON, msgspec.json.encode(metadata))

    async def _answer(self, send: Send, answering: Awaitable[Answer]) -> None:
        try:
            answer = await answering
        except LogUnavailable:
            await send_response(send, *respond.log_unavailable())
        else:
            await send_response(send, *respond.http(answer))


def _header_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit():
        raise Refusal(Problem.BODY_MALFORMED, "Inference-Header-Content-Length must be a number.")
    return int(value)
