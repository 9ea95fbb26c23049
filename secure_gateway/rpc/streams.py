"""`ModelStreamInfer`: many requests on one stream, each with one or many responses.

Requests run side by side and are answered in the order in which they came, as Triton does. What goes
wrong with one of them is the `error_message` of a response with its `id`, and the stream goes on.
`triton_final_response` marks the last response of each request; where a model's last one does not know
that it is the last, an empty one follows for who asks with `triton_enable_empty_final_response`.

A caller that does not read is cut off, as over REST: its work ends, and its places are free again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc
from grpc.aio import EOF, InternalError
from msgspec.structs import replace

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InferRequest, InferResponse, InputInvalid
from inference_node.protobuf import (
    ModelInferRequest,
    message_of,
    parse,
    request_of,
    set_parameters,
)
from inference_node.schema import message_class
from secure_gateway import respond
from secure_gateway.errors import Refusal, unforeseen
from secure_gateway.exchange import Call
from secure_gateway.gateway import Gateway
from secure_gateway.rpc.patience import Patience
from secure_gateway.rpc.received import Received
from secure_gateway.rpc.status import sentence
from secure_gateway.streams import StreamAnswer

ModelStreamInferResponse: Final = message_class("ModelStreamInferResponse")

FINAL: Final = "triton_final_response"
EMPTY_FINAL: Final = "triton_enable_empty_final_response"

UNREAD: Final = "the answers were not read in time"

# How many requests of one stream may be under way; the next one is read when the first is answered.
UNDER_WAY_MAX: Final = 32

# A response is taken whole or not at all, as far as we see: a large one may take as long as a body may.
READ_LEAST_BYTES_PER_S: Final = 16 * 1024

Turn = asyncio.Queue[bytes | None]
"""The responses to one request, then None; it holds one, so that a slow reader slows the work."""


class StreamService:
    """Serves streams of one gateway."""

    def __init__(self, gateway: Gateway, patience: Patience) -> None:
        self._gateway = gateway
        self._patience = patience
        self._unread_timeout_s = gateway.settings.unread_timeout_s
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let every stream finish what it was sent, and end."""
        self._stopping.set()

    async def serve(self, _requests: object, context: Any) -> None:  # noqa: ANN401 grpc's context
        """Serve one stream until its caller has sent and been answered everything."""
        received = Received(self._gateway, self._patience, context, Action.STREAM)
        await received.admit()
        # Sent with the first response, it would be sent again to who did not read that one.
        await context.send_initial_metadata(())
        if not await self._answer_all(received):
            # It waits behind what was not read. Nothing else is left of the call by then, and a caller
            # that leaves meanwhile is told nothing.
            with contextlib.suppress(InternalError):
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, UNREAD)
        elif self._stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the gateway is stopping; connect again")

    async def _answer_all(self, received: Received) -> bool:
        """Answer what comes; False if the caller does not read its answers."""
        turns: asyncio.Queue[Turn | None] = asyncio.Queue(UNDER_WAY_MAX)
        tasks: set[asyncio.Task[None]] = set()
        reading = asyncio.create_task(self._read(received, turns, tasks))
        try:
            while (turn := await turns.get()) is not None:
                while (message := await turn.get()) is not None:
                    if not await self._was_read(received.context, message):
                        return False
            await reading
        finally:
            unfinished = {reading, *tasks}
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        return True

    async def _was_read(self, context: Any, message: bytes) -> bool:  # noqa: ANN401 grpc's context
        """Send a response; False if there is no room for it even after a while.

        grpc takes a message once the caller's windows, connection and buffers have room for it. One
        that only keeps its connection alive makes none.
        """
        limit_s = self._unread_timeout_s + len(message) / READ_LEAST_BYTES_PER_S
        try:
            await self._patience.wait(context.write(message), limit_s)
        except TimeoutError:
            return False
        return True

    async def _read(
        self, received: Received, turns: asyncio.Queue[Turn | None], tasks: set[asyncio.Task[None]]
    ) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                reading = asyncio.ensure_future(received.context.read())
                try:
                    await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not reading.done():
                        reading.cancel()
                if not reading.done() or reading.result() is EOF:
                    break
                turn: Turn = asyncio.Queue(1)
                await turns.put(turn)
                task = asyncio.create_task(self._answer(received.call, reading.result(), turn))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            stopping.cancel()
        await turns.put(None)

    async def _answer(self, call: Call, body: bytes, turn: Turn) -> None:
        async with aclosing(self._responses(call, body)) as responses:
            async for response in responses:
                await turn.put(response)
        await turn.put(None)

    async def _responses(self, call: Call, body: bytes) -> AsyncGenerator[bytes, None]:
        call = replace(call, started_ns=time.monotonic_ns())
        request_id = ""
        try:
            message = parse(ModelInferRequest, body)
            request_id = message.id
            call = replace(
                call, model=message.model_name or None, version=message.model_version or None
            )
            answer = await self._gateway.pipeline.stream(call, partial(request_of, message))
            async with aclosing(_given(answer)) as given:
                async for response in given:
                    yield response
        except InputInvalid as error:
            yield await self._malformed(call, str(error))
        except _Failed as failed:
            yield _failure(request_id, failed.refusal, failed.record)
        except LogUnavailable:
            yield _failure(request_id, respond.unrecorded(), None)
        except Exception as error:  # noqa: BLE001 grpc would quote it to the caller
            yield _failure(request_id, unforeseen(error), None)

    async def _malformed(self, call: Call, detail: str) -> bytes:
        refusal = Refusal(Problem.BODY_MALFORMED, detail)
        try:
            answer = await self._gateway.pipeline.refuse(call, refusal)
        except LogUnavailable:
            return _failure("", respond.unrecorded(), None)
        return _failure("", answer.exchange.refusal or refusal, answer.record)


class _Failed(Exception):
    """Raised when a request of a stream failed, and that is recorded."""

    def __init__(self, refusal: Refusal, record: str | None) -> None:
        super().__init__(refusal.problem)
        self.refusal = refusal
        self.record = record


async def _given(answer: StreamAnswer) -> AsyncGenerator[bytes, None]:
    """Yield the responses of one request; the last one once the end of the request is recorded."""
    exchange, responses = answer.exchange, answer.responses
    if exchange.refusal is not None:
        raise _Failed(exchange.refusal, answer.record)
    request = exchange.request
    if responses is None or request is None:
        message = "what is not refused has responses"
        raise AssertionError(message)
    said = respond.parameters(exchange, answer.record)
    last: InferResponse | None = None
    async with aclosing(responses):
        try:
            async for response in responses:
                if last is not None:
                    # A node called it the last one, and went on.
                    last.parameters[FINAL] = False
                    yield _encoded(last, request)
                response.parameters.update(said)
                last = response if response.parameters.get(FINAL) is True else None
                if last is None:
                    yield _encoded(response, request)
        except Refusal as refusal:
            raise _Failed(refusal, responses.record) from refusal
    if last is None and request.parameters.get(EMPTY_FINAL) is True:
        last = InferResponse(
            model_name=exchange.model.name if exchange.model else "",
            model_version=exchange.model.version if exchange.model else "",
            id=request.id,
            outputs=[],
            parameters={FINAL: True},
        )
    if last is not None:
        yield _encoded(last, request)


def _encoded(response: InferResponse, request: InferRequest) -> bytes:
    message = ModelStreamInferResponse(infer_response=message_of(response, request))
    encoded: bytes = message.SerializeToString()
    return encoded


def _failure(request_id: str, refusal: Refusal, record: str | None) -> bytes:
    message = ModelStreamInferResponse(error_message=sentence(refusal, record))
    message.infer_response.id = request_id
    set_parameters(message.infer_response, {FINAL: True})
    encoded: bytes = message.SerializeToString()
    return encoded
