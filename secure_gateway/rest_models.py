"""What REST callers ask besides inference: health, metadata, statistics, the model repository.

Health and the server's metadata are open; everything else is one of the gateway's `Operations`.
"""

import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import ServerMetadata
from inference_node.wire import MALFORMED
from secure_gateway import respond
from secure_gateway.asgi import ClientGone, Receive, Scope, Send, read_body, send_response
from secure_gateway.claims import claims_of
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Call
from secure_gateway.gateway import Gateway
from secure_gateway.operations import Done
from secure_gateway.version import VERSION

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "infer_stream",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
READ: Final = ("GET", "HEAD")
CHANGE: Final = ("POST",)
CONTROL_LIMIT_BYTES: Final = 64 * 1024

JSON: Final = [(b"content-type", b"application/json")]

# Of Triton's server, not of the protocol: each would let a caller at the machine itself.
_NOT_OFFERED: Final = {
    "systemsharedmemory": "Memory is not shared with callers: tensors travel in the body.",
    "cudasharedmemory": "Memory is not shared with callers: tensors travel in the body.",
    "trace": "Requests are not traced for callers: the audit log records them.",
    "logging": "What is logged is for the site's operator to configure.",
}


class _Asked(Struct):
    """The body of a question to the model repository; other members mean nothing here."""

    ready: bool | None = False
    parameters: dict[str, Any] | None = None


class _Statistics(Struct):
    model_stats: Any


class ModelRoutes:
    """Serves all of `/v2` that is no inference."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._pipeline = gateway.pipeline
        self._operations = gateway.operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send, parts: Sequence[str]) -> None:
        """Answer one request; `parts` is its path behind `/v2/`."""
        try:
            match parts:
                case ["health", "live"]:
                    self._check(scope, READ)
                    await send_response(send, 200, JSON, b'{"live":true}')
                case ["health", "ready"]:
                    self._check(scope, READ)
                    await self._health(send)
                case [] | [""]:
                    self._check(scope, READ)
                    metadata = ServerMetadata(name="bedside", version=VERSION, extensions=EXTENSIONS)
                    await send_response(send, 200, JSON, msgspec.json.encode(metadata))
                case ["models", "stats"]:
                    self._check(scope, READ)
                    await self._statistics(scope, send, None, None)
                case ["models", name, *rest]:
                    await self._model(scope, send, name, rest)
                case ["repository", *rest]:
                    await self._repository(scope, receive, send, rest)
                case [first, *_] if first in _NOT_OFFERED:
                    raise Refusal(Problem.NOT_FOUND, _NOT_OFFERED[first])
                case _:
                    raise _no_such_path()
        except ClientGone:
            return
        except Refusal as refusal:
            call = self._call(scope, _action_of(parts), None, None)
            await self._refuse(send, call, refusal)

    async def _health(self, send: Send) -> None:
        if self._gateway.ready:
            await send_response(send, 200, JSON, b'{"ready":true}')
        else:
            await send_response(send, 503, JSON, b'{"ready":false}')

    async def _model(self, scope: Scope, send: Send, name: str, rest: Sequence[str]) -> None:
        version: str | None = None
        match rest:
            case ["versions", version, *rest]:
                pass
        call = self._call(scope, Action.MODELS, name, version)
        match rest:
            case []:
                self._check(scope, READ)
                await self._tell(send, self._operations.metadata(call))
            case ["ready"]:
                self._check(scope, READ)
                await self._ready(send, call)
            case ["config"]:
                self._check(scope, READ)
                await self._tell(send, self._operations.config(call))
            case ["stats"]:
                self._check(scope, READ)
                await self._statistics(scope, send, name, version)
            case ["trace", "setting"]:
                raise Refusal(Problem.NOT_FOUND, _NOT_OFFERED["trace"])
            case _:
                raise _no_such_path()

    async def _ready(self, send: Send, call: Call) -> None:
        done = await self._done(send, self._operations.ready(call))
        if done is not None and done.value is not None:
            await _answer(send, done, {"name": done.value.name, "ready": True})

    async def _statistics(
        self, scope: Scope, send: Send, name: str | None, version: str | None
    ) -> None:
        call = self._call(scope, Action.STATISTICS, name, version)
        done = await self._done(send, self._operations.statistics(call))
        if done is not None:
            await _answer(send, done, _Statistics(done.value))

    async def _repository(
        self, scope: Scope, receive: Receive, send: Send, rest: Sequence[str]
    ) -> None:
        name: str | None = None
        match rest:
            case ["index"]:
                action = Action.INDEX
            case ["models", name, "load"]:
                action = Action.LOAD
            case ["models", name, "unload"]:
                action = Action.UNLOAD
            case _:
                raise _no_such_path()
        self._check(scope, CHANGE)
        call = self._call(scope, action, name, None)
        # No stranger's body is read.
        principal = self._gateway.authenticator.authenticate(call.authorization)
        call = replace(call, principal=principal)
        try:
            asked = await _asked(scope, receive)
            if action is Action.LOAD and asked.parameters:
                # A configuration or a file of the caller's own would serve what nobody released.
                raise Refusal(Problem.BODY_MALFORMED, "A model is loaded as it is, without parameters.")
        except Refusal as refusal:
            await self._refuse(send, call, refusal)
            return
        if action is Action.INDEX:
            await self._tell(send, self._operations.index(call, ready=asked.ready is True))
        elif action is Action.LOAD:
            await self._changed(send, self._operations.load(call))
        else:
            # No model depends on another: with `unload_dependents` there is nothing more to unload.
            await self._changed(send, self._operations.unload(call))

    async def _refuse(self, send: Send, call: Call, refusal: Refusal) -> None:
        try:
            answer = await self._pipeline.refuse(call, refusal)
        except LogUnavailable:
            await send_response(send, *respond.for_oip(respond.log_unavailable()))
        else:
            await send_response(send, *respond.for_oip(respond.http(answer)))

    async def _changed(self, send: Send, asking: Awaitable[Done[tuple[str, ...]]]) -> None:
        done = await self._done(send, asking)
        if done is not None:
            await _answer(send, done, {})

    async def _tell(self, send: Send, asking: Awaitable[Done[Any]]) -> None:
        done = await self._done(send, asking)
        if done is not None:
            await _answer(send, done, done.value)

    async def _done(self, send: Send, asking: Awaitable[Done[Any]]) -> Done[Any] | None:
        """Return what was asked for; or answer, if it was refused, and return None."""
        try:
            done = await asking
        except LogUnavailable:
            await send_response(send, *respond.for_oip(respond.log_unavailable()))
            return None
        if done.value is None:
            await send_response(send, *respond.for_oip(respond.http(done.answer)))
            return None
        return done

    def _check(self, scope: Scope, allowed: tuple[str, ...]) -> None:
        if scope["method"] not in allowed:
            raise Refusal(
                Problem.METHOD_NOT_ALLOWED,
                f"This path is asked with {' or '.join(allowed)}.",
                allow=allowed,
            )

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


async def _asked(scope: Scope, receive: Receive) -> _Asked:
    headers = dict(scope["headers"])
    body = await read_body(receive, headers.get(b"content-length"), CONTROL_LIMIT_BYTES)
    try:
        return msgspec.json.decode(body, type=_Asked) if body else _Asked()
    except MALFORMED as error:
        raise Refusal(
            Problem.BODY_MALFORMED, "The body is not JSON of the model repository extension."
        ) from error


async def _answer(send: Send, done: Done[Any], told: object) -> None:
    headers = [*JSON, (b"bedside-record", done.answer.record.encode())]
    await send_response(send, 200, headers, msgspec.json.encode(told))


def _action_of(parts: Sequence[str]) -> Action:
    match parts:
        case ["models", "stats"] | ["models", *_, "stats"]:
            return Action.STATISTICS
        case ["repository", "index"]:
            return Action.INDEX
        case ["repository", "models", _, "load"]:
            return Action.LOAD
        case ["repository", "models", _, "unload"]:
            return Action.UNLOAD
        case _:
            return Action.MODELS


def _no_such_path() -> Refusal:
    return Refusal(Problem.NOT_FOUND, "See the Open Inference Protocol v2 for paths.")
