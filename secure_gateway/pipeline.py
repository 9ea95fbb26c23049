"""The order of the stages, and the only place that knows it.

    authenticate -> describe -> decide -> route -> execute -> record -> respond

A refused request takes the same road: the stages after the one that refused are left out, the record
is not. Responding is the protocol's own last step, with the `Answer` that comes out here.
"""

import logging
from datetime import UTC, datetime
from uuid import uuid4

from audit.records import Action, Problem
from policies import ApiAction
from secure_gateway.authenticate import Authenticator
from secure_gateway.decide import Decider
from secure_gateway.describe import Describer
from secure_gateway.errors import Refusal
from secure_gateway.exchange import Answer, Call, Decode, Exchange
from secure_gateway.execute import Executor
from secure_gateway.record import Recorder
from secure_gateway.route import Router

logger = logging.getLogger(__name__)


class Pipeline:
    """Takes a call through the stages and returns its answer once the record is durable."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        describer: Describer,
        decider: Decider,
        router: Router,
        executor: Executor,
        recorder: Recorder,
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._describe = describer.describe
        self._resolve = describer.resolve
        self._decide = decider.decide
        self._authorize = decider.authorize
        self._route = router.route
        self._execute = executor.execute
        self._record = recorder.record

    async def serve(self, call: Call, decode: Decode | None = None) -> Answer:
        """Serve an inference or, with Action.PLACE, only say where it may run.

        Raises:
            LogUnavailable: if the record cannot be made durable; the caller is then told 503 and
                nothing else.
        """
        exchange = Exchange(call, uuid4(), datetime.now(UTC))
        try:
            exchange.principal = self._authenticate(call.authorization)
            self._describe(exchange, decode)
            self._decide(exchange)
            self._route(exchange)
            if call.action is Action.INFER:
                exchange.response = await self._execute(exchange)
        except Refusal as refusal:
            exchange.refusal = refusal
        except Exception as error:  # noqa: BLE001 the one place that records what nobody foresaw
            exchange.refusal = _unforeseen(error)
        return Answer(exchange, await self._record(exchange))

    async def authorize(self, call: Call, action: ApiAction) -> Answer:
        """Authorize and record an API action that moves no payload.

        Raises:
            LogUnavailable: if the record cannot be made durable.
        """
        exchange = Exchange(call, uuid4(), datetime.now(UTC))
        try:
            exchange.principal = self._authenticate(call.authorization)
            self._authorize(exchange, action)
            if call.model is not None:
                exchange.model = self._resolve(call.model, call.version)
        except Refusal as refusal:
            exchange.refusal = refusal
        return Answer(exchange, await self._record(exchange))

    async def refuse(self, call: Call, refusal: Refusal) -> Answer:
        """Record a request that ended before its body could be understood.

        The caller is still authenticated, so that the record says who sent it.
        """
        exchange = Exchange(call, uuid4(), datetime.now(UTC))
        exchange.refusal = refusal
        try:
            exchange.principal = self._authenticate(call.authorization)
        except Refusal as unknown_caller:
            exchange.refusal = unknown_caller
        return Answer(exchange, await self._record(exchange))


def _unforeseen(error: Exception) -> Refusal:
    """Return the refusal for a defect of ours.

    The error's message may quote content, so only its type and place are logged.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    logger.error(
        "unforeseen %s at %s:%s",
        type(error).__qualname__,
        place.tb_frame.f_code.co_qualname if place else "?",
        place.tb_lineno if place else 0,
    )
    return Refusal(Problem.INTERNAL, "The gateway failed; the request was recorded as failed.")
