"""One call as it came in: who sent it, what it asks for, and how it is refused or answered."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Final, NoReturn, TypeVar

from grpc import StatusCode
from grpc.aio import EOF, InternalError
from msgspec.structs import replace

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InputInvalid
from inference_node.protobuf import parse
from secure_gateway import respond
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call
from secure_gateway.gateway import Gateway
from secure_gateway.operations import Done
from secure_gateway.rpc.facts import read_metadata
from secure_gateway.rpc.patience import Patience
from secure_gateway.rpc.status import abort

T = TypeVar("T")

# As long as a body may take over REST; who sends one is known, and still holds a place meanwhile.
MESSAGE_TIMEOUT_S: Final = 20.0


class Received:
    """A call under way.

    Whoever sent it is known before its message is read: nobody else makes the gateway hold a large one.
    """

    def __init__(
        self,
        gateway: Gateway,
        patience: Patience,
        context: Any,  # noqa: ANN401 grpc's context has no one type
        action: Action,
    ) -> None:
        """Read the metadata of `context`, which is grpc's."""
        sent = read_metadata(context.invocation_metadata())
        left_s = context.time_remaining()
        self._gateway = gateway
        self._patience = patience
        self._fault = sent.fault
        self.context = context
        self.call = Call(
            action=action,
            authorization=sent.authorization,
            claims=sent.claims,
            started_ns=time.monotonic_ns(),
            deadline=None if left_s is None else time.monotonic() + left_s,
        )

    async def admit(self) -> None:
        """Go on only with a caller that is known and states its facts once."""
        try:
            if self._fault is not None:
                raise Refusal(Problem.FACTS_INVALID, self._fault)
            principal = self._gateway.authenticator.authenticate(self.call.authorization)
        except Refusal as refusal:
            await self.refuse(refusal)
        self.call = replace(self.call, principal=principal)

    async def message(self, kind: Any) -> Any:  # noqa: ANN401 classes that protobuf makes at run time
        """Return the call's one message, of class `kind`; end the call if it brings none."""
        await self.admit()
        try:
            body = await self._patience.wait(self.context.read(), MESSAGE_TIMEOUT_S)
        except TimeoutError:
            await self.refuse(self._incomplete())
        except (asyncio.CancelledError, InternalError):
            await self._gateway.pipeline.refuse(self.call, self._incomplete())
            raise
        if body is EOF:
            await self.refuse(self._incomplete())
        try:
            return parse(kind, body)
        except InputInvalid as error:
            await self.refuse(Refusal(Problem.BODY_MALFORMED, str(error)))

    def asks(self, model: str, version: str = "") -> Call:
        """Return the call with the model that its message names; none if the name is empty."""
        return replace(self.call, model=model or None, version=version or None)

    async def refuse(self, refusal: Refusal, code: StatusCode | None = None) -> NoReturn:
        """Record the call as refused, and end it."""
        answer = await self.recorded(self._gateway.pipeline.refuse(self.call, refusal))
        await self.end(answer, code)

    async def end(self, answer: Answer, code: StatusCode | None = None) -> NoReturn:
        """End the call with the refusal of `answer`."""
        refusal = answer.exchange.refusal
        if refusal is None:
            message = "only a refused call is ended"
            raise AssertionError(message)
        await abort(self.context, refusal, answer.record, code)

    async def recorded(self, answering: Awaitable[T]) -> T:
        """Return what is awaited; if it cannot be recorded, end the call and say nothing of it."""
        try:
            return await answering
        except LogUnavailable:
            await abort(self.context, respond.unrecorded(), None)

    async def done(self, asking: Awaitable[Done[T]]) -> T:
        """Return the value of a question to the site's models, or end the call as it was refused."""
        done = await self.recorded(asking)
        if done.value is None:
            await self.end(done.answer)
        self.context.set_trailing_metadata((("bedside-record", done.answer.record),))
        return done.value

    def _incomplete(self) -> Refusal:
        # grpc itself tells a caller whose message is too large, and tells us only that none came.
        limit = self._gateway.settings.body_limit_bytes
        return Refusal(
            Problem.BODY_MALFORMED, f"No whole message came; it may have {limit} bytes at most."
        )
