"""The gateway's answer to a request for many responses: server-sent events (WHATWG HTML, section 9.2).

Each response is a `message` event, whose data is a JSON inference response. A last event says how it
ended: `end`, with the number of responses and the record of the end, or `error`, with the problem
document that the request would have been answered with.
"""

from contextlib import aclosing

import msgspec

from audit import LogUnavailable
from audit.records import Problem
from inference_node import InferResponse, InputInvalid, encode_response
from secure_gateway import respond
from secure_gateway.asgi import Send
from secure_gateway.errors import Refusal
from secure_gateway.streams import ResponseStream, StreamAnswer

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


async def send_stream(send: Send, answer: StreamAnswer, responses: ResponseStream) -> None:
    """Send the responses of a stream as they come; the next is asked for once the last was taken."""
    exchange = answer.exchange
    headers = [*HEADERS, (b"bedside-record", answer.record.encode())]
    if exchange.placement is not None:
        headers.append((b"bedside-placement", exchange.placement.encode()))
    async with aclosing(responses):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for response in responses:
                await _send(send, await _event(answer, responses, response))
        except Refusal as refusal:
            last = _error(refusal, responses.record)
        except LogUnavailable:
            last = _error(respond.unrecorded(), None)
        else:
            told = {"responses": exchange.responses, "record": responses.record}
            last = b"event: end\ndata: %s\n\n" % msgspec.json.encode(told)
        await _send(send, last)
        await send({"type": "http.response.body", "body": b""})


async def _event(answer: StreamAnswer, responses: ResponseStream, response: InferResponse) -> bytes:
    exchange = answer.exchange
    response.parameters = {**response.parameters, **respond.parameters(exchange, answer.record)}
    try:
        return b"data: %s\n\n" % encode_response(response, exchange.request)[0]
    except InputInvalid as error:
        # Bytes that are no text: an event has no binary form.
        refusal = Refusal(Problem.INPUT_INVALID, str(error))
        await responses.fail(refusal)
        raise refusal from error


def _error(refusal: Refusal, record: str | None) -> bytes:
    return b"event: error\ndata: %s\n\n" % respond.refusal(refusal, record=record)[2]


async def _send(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})
