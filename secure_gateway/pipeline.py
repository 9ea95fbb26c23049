"""The order of the stages, and the only place that knows it.

    authenticate -> describe -> decide -> route -> execute -> record -> respond

Between the first two stands the door, where a known caller is let in or told when to come again;
whoever was let in waits there for its turn where many come at once. A refused request takes the same
road: the stages after the one that refused are left out, the record is not. Responding is the
protocol's own last step, with the `Answer` that comes out here.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from audit import LogUnavailable
from audit.records import Action, Problem
from inference_node import InferResponse, InputInvalid, check_json
from policies import ApiAction, Principal
from secure_gateway.admission import ConcurrencyLimit, Door
from secure_gateway.asgi import ClientGone
from secure_gateway.authenticate import Authenticator
from secure_gateway.cache import ResponseCache
from secure_gateway.decide import Decider
from secure_gateway.describe import Describer
from secure_gateway.errors import Lost, NotBegun, Refusal, unforeseen
from secure_gateway.exchange import Answer, Arrive, Call, Decode, Exchange, Unrecorded
from secure_gateway.execute import Executor
from secure_gateway.fulfil import Fulfiller
from secure_gateway.ids import new_id
from secure_gateway.record import Prepare, Recorder, record_of
from secure_gateway.route import Router
from secure_gateway.streams import ResponseStream, StreamAnswer
from secure_gateway.turns import Turns

T = TypeVar("T")


class Pipeline:
    """Takes a call through the stages and returns its answer once the record is durable."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        door: Door,
        describer: Describer,
        decider: Decider,
        router: Router,
        executor: Executor,
        recorder: Recorder,
        fulfiller: Fulfiller,
        cache: ResponseCache | None = None,
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._check_caller = door.check_caller
        self._enter = door.enter
        self._take_turn = Turns().take
        self._count_emergency = door.count_emergency
        self._describe = describer.describe
        self._decide = decider.decide
        self._authorize = decider.authorize
        self._route = router.route
        self._execute = executor.execute
        self._prepare = fulfiller.prepare
        self._prepare_placement = fulfiller.prepare_placement
        self._fulfil = fulfiller.apply
        self._stream = executor.stream
        self._recorder = recorder
        self._record = recorder.record
        self._recall = cache.recall if cache is not None else None

    async def serve(
        self,
        call: Call,
        decode: Decode | None = None,
        arrive: Arrive | None = None,
        prepare: Prepare | None = None,
    ) -> Answer:
        """Serve an inference or, with Action.PLACE, only say where it may run.

        `prepare` may be called with the answer while its record is being written, so that it can be
        encoded by then. It must have no effect if the record is never there.

        Raises:
            ClientGone: if the caller hung up before its body was there; nothing was done.
            LogUnavailable: if the record cannot be made durable; the caller is then told 503 and
                nothing else.
        """
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        try:
            await self._serve(exchange, decode, arrive)
        except asyncio.CancelledError:
            self._left(exchange)
            raise
        return Answer(exchange, await self._record(exchange, prepare))

    def expect(self, principal: Principal, call: Call) -> None:
        """See that a caller of `serve_as` may ask, before what it sends is read; nothing is counted.

        Raises:
            Refusal: rate-limited, with the time after which to try again.
        """
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        exchange.principal = principal
        self._check_caller(exchange)

    async def serve_as(
        self, principal: Principal, call: Call, decode: Decode, *, request_id: UUID | None = None
    ) -> Answer:
        """Serve a call whose sender was authenticated when it came in, such as queued work.

        Everything else is decided anew: policies, consent and devices may have changed since. Work
        counts against its caller's limits when it is submitted, and not again when it is run; its run
        is recorded under its own `request_id`.

        Raises:
            Unrecorded: if the record cannot be made durable; it says what the call came to.
        """
        exchange = Exchange(call, request_id or new_id(), datetime.now(UTC))
        exchange.principal = principal
        try:
            await self._serve(exchange, decode)
        except asyncio.CancelledError:
            self._left(exchange)
            raise
        try:
            return Answer(exchange, await self._record(exchange))
        except LogUnavailable as error:
            raise Unrecorded(exchange) from error

    async def _serve(
        self, exchange: Exchange, decode: Decode | None, arrive: Arrive | None = None
    ) -> None:
        limit: ConcurrencyLimit | None = None
        try:
            if exchange.principal is None:
                exchange.principal = self._authenticate(
                    exchange.call.authorization, exchange.call.principal
                )
                if arrive is not None:
                    self._check_caller(exchange)
                    await arrive()
                limit = self._enter(exchange)
                if (turn := self._take_turn()) is not None:
                    await turn
            elif exchange.call.action is Action.SUBMIT:
                self._enter(exchange)
            if exchange.call.action is Action.PLACE:
                self._authorize(exchange, ApiAction.PLACEMENTS_ASK)
            await self._choose(exchange, decode)
            if exchange.call.action is Action.INFER:
                exchange.response = await self._run(exchange)
            elif exchange.decision is not None and exchange.decision.obligations:
                # What is run later, or on a device, must be able to meet them too.
                self._prepare_later(exchange)
        except Refusal as refusal:
            exchange.refusal = refusal
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 the one place that records what nobody foresaw
            exchange.refusal = unforeseen(error)
        finally:
            if limit is not None:
                # What was kept from before says nothing of how fast the model is.
                limit.leave(served=exchange.response is not None and not exchange.from_cache)

    async def _choose(self, exchange: Exchange, decode: Decode | None) -> None:
        """Find out what a known caller's request is about, whether it may run, and where."""
        await self._describe(exchange, decode)
        self._decide(exchange)
        self._count_emergency(exchange)
        self._route(exchange)

    async def stream(self, call: Call, decode: Decode, arrive: Arrive | None = None) -> StreamAnswer:
        """Serve an inference of many responses (Action.STREAM); the stages are those of `serve`.

        It returns once there is a first response and the record of the opening is durable. The place
        among the model's requests under way is held until the stream has ended.

        Raises:
            ClientGone: if the caller hung up before its body was there; nothing was done.
            LogUnavailable: if the record cannot be made durable.
        """
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        responses: ResponseStream | None = None
        try:
            responses = await self._open(exchange, decode, arrive)
        except Refusal as refusal:
            exchange.refusal = refusal
        except ClientGone:
            raise
        except asyncio.CancelledError:
            self._left(exchange)
            raise
        except Exception as error:  # noqa: BLE001 the one place that records what nobody foresaw
            exchange.refusal = unforeseen(error)
        try:
            record = await self._record(exchange)
        except asyncio.CancelledError:
            # The opening is with the log already, so it gets its end.
            if responses is not None:
                await responses.aclose()
            raise
        except LogUnavailable:
            if responses is not None:
                await responses.discard()
            raise
        return StreamAnswer(exchange, record, responses)

    async def _open(self, exchange: Exchange, decode: Decode, arrive: Arrive | None) -> ResponseStream:
        exchange.principal = self._authenticate(exchange.call.authorization, exchange.call.principal)
        if arrive is not None:
            self._check_caller(exchange)
            await arrive()
        limit = self._enter(exchange)
        try:
            if (turn := self._take_turn()) is not None:
                await turn
            await self._choose(exchange, decode)
            if exchange.decision is not None and exchange.decision.obligations:
                self._prepare(exchange)
            first, rest = await self._run_where_possible(exchange, self._begin)
        except BaseException:
            if limit is not None:
                limit.leave(served=False)
            raise
        return ResponseStream(exchange, first, rest, self._recorder, limit)

    async def _begin(
        self, exchange: Exchange
    ) -> tuple[InferResponse, AsyncGenerator[InferResponse, None]]:
        responses = self._fulfilled(exchange)
        return await anext(responses), responses

    async def _fulfilled(self, exchange: Exchange) -> AsyncGenerator[InferResponse, None]:
        async with aclosing(self._stream(exchange)) as responses:
            async for response in responses:
                if exchange.decision is not None and exchange.decision.obligations:
                    self._fulfil(exchange, response)
                if exchange.call.wants_text:
                    _refuse_unsayable(exchange, response)
                yield response

    def _prepare_later(self, exchange: Exchange) -> None:
        if exchange.call.action is Action.PLACE:
            # A device meets the others itself, and refuses what it cannot.
            self._prepare_placement(exchange)
        else:
            self._prepare(exchange)

    def _left(self, exchange: Exchange) -> None:
        exchange.abandoned = True
        self._recorder.note(record_of(exchange))

    async def _run(self, exchange: Exchange) -> InferResponse:
        obliged = exchange.decision is not None and exchange.decision.obligations
        if obliged:
            self._prepare(exchange)
        if self._recall is None:
            response = await self._run_on_nodes(exchange)
        else:
            response, exchange.from_cache = await self._recall(exchange, self._run_on_nodes)
        if obliged:
            self._fulfil(exchange, response)
        if exchange.call.wants_text:
            _refuse_unsayable(exchange, response)
        return response

    def _run_on_nodes(self, exchange: Exchange) -> Awaitable[InferResponse]:
        return self._run_where_possible(exchange, self._execute)

    async def _run_where_possible(
        self, exchange: Exchange, execute: Callable[[Exchange], Awaitable[T]]
    ) -> T:
        lost: Lost | None = None
        while True:
            try:
                return await execute(exchange)
            except NotBegun as first:
                if isinstance(first, Lost):
                    if lost is not None:
                        raise
                    lost = first
                attempted, failed = exchange.attempted, exchange.placement or ""
                exchange.attempted = (*attempted, failed)
                try:
                    self._route(exchange)
                except Refusal:
                    exchange.attempted = attempted
                    # What may have run stays so, whatever the next node says of itself.
                    raise lost or first from None

    async def authorize(
        self, call: Call, action: ApiAction, work: Callable[[Exchange], Awaitable[None]] | None = None
    ) -> Answer:
        """Authorize and record an API action that moves no payload.

        `work` is what was asked for: it runs once that is permitted, and a refusal of its own is
        recorded.

        Raises:
            LogUnavailable: if the record cannot be made durable.
        """
        exchange = await self._permitted(call, action, work)
        return Answer(exchange, await self._record(exchange))

    async def authorize_as(
        self,
        principal: Principal,
        call: Call,
        action: ApiAction,
        work: Callable[[Exchange], Awaitable[None]] | None = None,
    ) -> Answer:
        """Do as `authorize` does for a caller who is authenticated already.

        Raises:
            ClientGone: if the caller hung up before what it sent was there; nothing was done.
            LogUnavailable: if the record cannot be made durable.
        """
        exchange = await self._permitted(call, action, work, principal)
        return Answer(exchange, await self._record(exchange))

    async def authorize_monitoring(self, call: Call, action: ApiAction) -> tuple[Exchange, str | None]:
        """Authorize a look at the gateway's own state, also while the log takes no records.

        It is recorded like everything else where that is possible; the record is None where it is not.
        """
        exchange = await self._permitted(call, action, None)
        try:
            return exchange, await self._record(exchange)
        except LogUnavailable:
            return exchange, None

    async def _permitted(
        self,
        call: Call,
        action: ApiAction,
        work: Callable[[Exchange], Awaitable[None]] | None,
        principal: Principal | None = None,
    ) -> Exchange:
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        try:
            exchange.principal = principal or self._authenticate(call.authorization, call.principal)
            self._authorize(exchange, action)
            if work is not None:
                await work(exchange)
        except Refusal as refusal:
            exchange.refusal = refusal
        except asyncio.CancelledError:
            self._left(exchange)
            raise
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 the one place that records what nobody foresaw
            exchange.refusal = unforeseen(error)
        return exchange

    async def refuse(self, call: Call, refusal: Refusal) -> Answer:
        """Record a request that ended before its body could be understood.

        The caller is still authenticated, so that the record says who sent it.
        """
        exchange = Exchange(call, new_id(), datetime.now(UTC))
        exchange.refusal = refusal
        try:
            exchange.principal = self._authenticate(call.authorization, call.principal)
        except Refusal as unknown_caller:
            exchange.refusal = unknown_caller
        return Answer(exchange, await self._record(exchange))


def _refuse_unsayable(exchange: Exchange, response: InferResponse) -> None:
    """Refuse what the answer could not say, before the record says that it was answered."""
    try:
        check_json(response, exchange.request)
    except InputInvalid as error:
        raise Refusal(Problem.INPUT_INVALID, str(error)) from error
