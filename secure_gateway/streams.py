"""Many responses to one request: given one by one, and the way they ended recorded.

The record of the opening is durable before the first response leaves; it is that record which permits
the others. A second one of the same `id` says how the stream ended. It is durable before the caller is
told that this was all; for a caller that left it is written all the same.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from inference_node import InferResponse
from secure_gateway.admission import ConcurrencyLimit
from secure_gateway.errors import Refusal, unforeseen
from secure_gateway.exchange import Answer, Exchange
from secure_gateway.record import Recorder, end_of


class ResponseStream(AsyncIterator[InferResponse]):
    """The responses of one exchange; whoever takes it closes it with `aclose`, or reads to its end."""

    def __init__(
        self,
        exchange: Exchange,
        first: InferResponse,
        rest: AsyncGenerator[InferResponse, None],
        recorder: Recorder,
        limit: ConcurrencyLimit | None,
    ) -> None:
        """Take over what is left to give, and the place that it holds in `limit`."""
        self._exchange = exchange
        self._first: InferResponse | None = first
        self._rest = rest
        self._recorder = recorder
        self._limit = limit
        self._given = 0
        self._ended = False
        self.record: str | None = None
        """Where the record of the end stands, once there is one."""

    async def __anext__(self) -> InferResponse:
        """Return the next response.

        Raises:
            StopAsyncIteration: after the last, once that is recorded.
            Refusal: if the stream failed; it is recorded then.
            LogUnavailable: if how it ended cannot be recorded.
        """
        if self._ended:
            raise StopAsyncIteration
        first, self._first = self._first, None
        if first is not None:
            self._given = 1
            return first
        try:
            response = await anext(self._rest)
        except StopAsyncIteration:
            await self._end()
            raise
        except Refusal as refusal:
            self._exchange.refusal = refusal
            await self._end()
            raise
        except Exception as error:
            self._exchange.refusal = unforeseen(error)
            await self._end()
            raise self._exchange.refusal from error
        self._given += 1
        return response

    async def aclose(self) -> None:
        """End the work; a stream that was not read to its end was left by its caller."""
        if self._ended:
            return
        self._exchange.abandoned = True
        self._finish()
        self._recorder.note(end_of(self._exchange))
        await self._rest.aclose()

    async def fail(self, refusal: Refusal) -> None:
        """End the stream because the last response cannot be sent in the caller's protocol.

        Raises:
            LogUnavailable: if that cannot be recorded.
        """
        self._exchange.refusal = refusal
        self._given -= 1
        try:
            await self._end()
        finally:
            await self._rest.aclose()

    async def discard(self) -> None:
        """End the work of a stream whose opening could not be recorded: nothing of it is given."""
        self._exchange.abandoned = True
        self._finish()
        await self._rest.aclose()

    async def _end(self) -> None:
        self._finish()
        self.record = await self._recorder.end(self._exchange)

    def _finish(self) -> None:
        exchange = self._exchange
        self._ended = True
        exchange.responses = self._given
        if self._limit is not None:
            self._limit.leave(served=exchange.refusal is None and not exchange.abandoned)


class StreamAnswer(Answer, frozen=True):
    """How a stream began: refused, or with `responses` to be read and closed."""

    responses: ResponseStream | None
