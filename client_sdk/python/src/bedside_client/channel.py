"""The device's side of the device channel: one WebSocket, kept open, over which requests come in."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import aiohttp
import msgspec
from msgspec import Struct

from bedside_client.errors import ModelFailed, PackageRejected, TokenRejected
from bedside_client.packages import Package
from bedside_client.state import DeviceState

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0
HEARTBEAT_S: Final = 20.0
CONCURRENT_MAX: Final = 16
FRAME_LIMIT_BYTES: Final = 1024 * 1024

_UNAUTHORIZED: Final = frozenset({401, 403})


class InferFrame(Struct, frozen=True, kw_only=True):
    """A request that the gateway sends: names, never tensors."""

    id: int
    model: str
    version: str | None
    subject: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    deadline_ms: int


class OutputTensor(Struct, frozen=True, kw_only=True):
    """One output of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class Answer(Struct, frozen=True, kw_only=True):
    """What ran, and what it answered."""

    package: Package
    outputs: tuple[OutputTensor, ...]


class SubjectUnknown(Exception):
    """Raised by a handler when this device holds no data of the subject."""


class ConsentRefused(Exception):
    """Raised by a handler when the person does not agree to this use."""


Socket = aiohttp.ClientWebSocketResponse[Literal[True]]
Handler = Callable[[InferFrame], Awaitable[Answer]]
Event = Callable[[str, dict[str, Any]], None]


class Channel:
    """Keeps the channel open and answers requests through `handler`."""

    def __init__(
        self,
        state: DeviceState,
        handler: Handler,
        packages: Callable[[], list[Package]],
        event: Event,
    ) -> None:
        self._state = state
        self._url = f"{state.enrolment.gateway_url.rstrip('/')}/v1/channel"
        self._handler = handler
        self._packages = packages
        self._event = event
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Stay connected until cancelled; a dropped connection is opened again with back-off.

        Raises:
            TokenRejected: if the gateway no longer knows this device.
        """
        delay = BACKOFF_FIRST_S
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.ws_connect(
                        self._url,
                        headers={"Authorization": f"Bearer {self._state.assertion()}"},
                        heartbeat=HEARTBEAT_S,
                        max_msg_size=FRAME_LIMIT_BYTES,
                    ) as socket:
                        delay = BACKOFF_FIRST_S
                        await self._serve(socket)
                except aiohttp.WSServerHandshakeError as error:
                    if error.status in _UNAUTHORIZED:
                        # A device that was just enrolled may not be known to every gateway yet.
                        if delay >= BACKOFF_MAX_S:
                            raise TokenRejected("the gateway does not know this device") from error
                        self._event("rejected", {})
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass
                self._event("disconnected", {})
                # Jitter, so that a thousand devices do not come back in the same instant.
                await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 not a secret
                delay = min(delay * 2, BACKOFF_MAX_S)

    async def _serve(self, socket: Socket) -> None:
        models = [
            {"name": package.model, "version": package.version, "digest": package.digest}
            for package in self._packages()
        ]
        await _send(socket, {"type": "ready", "models": models})
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                await self._receive(socket, message.data)
        finally:
            await self._cancel_all()

    async def _receive(self, socket: Socket, text: str) -> None:
        frame = msgspec.json.decode(text, type=dict[str, Any])
        match frame.get("type"):
            case "welcome":
                self._event("connected", {})
            case "infer":
                request = msgspec.convert(frame, InferFrame)
                if len(self._running) >= CONCURRENT_MAX:
                    await _send(socket, {"type": "error", "id": request.id, "code": "busy"})
                    return
                task = asyncio.create_task(self._answer(socket, request))
                self._running[request.id] = task
                task.add_done_callback(lambda _: self._running.pop(request.id, None))
            case "cancel":
                task_ = self._running.get(frame.get("id", -1))
                if task_ is not None:
                    task_.cancel()
            case _:
                # A frame of a later protocol version: nothing that this device can serve.
                return

    async def _answer(self, socket: Socket, request: InferFrame) -> None:
        code = "failed"
        try:
            async with asyncio.timeout(request.deadline_ms / 1000):
                answer = await self._handler(request)
        except SubjectUnknown:
            code = "subject-unknown"
        except ConsentRefused:
            code = "refused"
        except PackageRejected:
            code = "model-unknown"
        except (ModelFailed, TimeoutError):
            code = "failed"
        else:
            fields = {
                "type": "result",
                "id": request.id,
                "version": answer.package.version,
                "digest": answer.package.digest,
                "outputs": answer.outputs,
            }
            with contextlib.suppress(ConnectionError):
                await _send(socket, fields)
            self._event("served", {"model": request.model, "version": answer.package.version})
            return
        with contextlib.suppress(ConnectionError):
            await _send(socket, {"type": "error", "id": request.id, "code": code})
        self._event("not served", {"model": request.model, "code": code})

    async def _cancel_all(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(socket: Socket, frame: dict[str, Any]) -> None:
    await socket.send_str(msgspec.json.encode(frame).decode())
