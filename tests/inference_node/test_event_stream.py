"""What nodes stream: server-sent events as WHATWG HTML section 9.2 writes them, each in its time.

Seen to fail: with an event ended by two line feeds only and each block taken for an event, comments and
CRLF broke a stream; with a limit on each read instead of each event, a dripping node was waited for
without end.
"""

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_node import ExecutionFailed, InferRequest, NodeClient, NodeFailed, NodeSilent
from inference_node.event_stream import MESSAGE, read_events

SERVER = {"name": "s", "version": "1", "extensions": ["infer_stream"]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def response(value):
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [value]}
    return json.dumps({"model_name": "m", "outputs": [output]}).encode()


async def events(*chunks, limit_bytes=1000):
    async def arriving():
        for chunk in chunks:
            yield chunk

    return [event async for event in read_events(arriving(), limit_bytes)]


EVENTS = {
    "one": (b"data: a\n\n", [(MESSAGE, b"a")]),
    "two": (b"data: a\n\ndata: b\n\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "both line ends": (
        b"data: a\r\n\r\ndata: b\r\n\r\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "comments": (b": ping\n\ndata: a\n: between\n\n:\n\n", [(MESSAGE, b"a")]),
    "no data": (b"event: x\n\nretry: 10\n\nid: 7\n\ndata: a\n\n", [(MESSAGE, b"a")]),
    "a type": (b"event: error\ndata: a\n\n", [("error", b"a")]),
    "an empty type": (b"event:\ndata: a\n\n", [(MESSAGE, b"a")]),
    "the last type": (b"event: x\nevent: y\ndata: a\n\ndata: b\n\n", [("y", b"a"), (MESSAGE, b"b")]),
    "several lines": (b"data: a\ndata\ndata:b\n\n", [(MESSAGE, b"a\n\nb")]),
    "empty data": (b"data\n\n", [(MESSAGE, b"")]),
    "one space": (b"data:  a\n\n", [(MESSAGE, b" a")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [(MESSAGE, b"a")]),
    "unknown fields": (b"x: y\nDATA: b\ndata: a\nz\n\n", [(MESSAGE, b"a")]),
    "blank lines": (b"\n\n\n\r\n\rdata: a\n\n\n", [(MESSAGE, b"a")]),
    "a comment at the end": (b"data: a\n\n: bye", [(MESSAGE, b"a")]),
}  # fmt: skip


@pytest.mark.parametrize("case", EVENTS)
async def test_events_are_read_as_the_standard_has_them(case):
    sent, expected = EVENTS[case]
    assert await events(sent) == expected
    assert await events(*(bytes([byte]) for byte in sent)) == expected


PARTS = (
    b"data: ",
    b"data",
    b"event: e",
    b": c",
    b"id: 1",
    b"a",
    b"\n",
    b"\n",
    b"\r\n",
    b"\r\n",
    b"\r",
    b"",
)


@given(st.lists(st.sampled_from(PARTS), max_size=20), st.data())
async def test_it_makes_no_difference_how_a_stream_is_cut(parts, data):
    sent = b"".join(parts) + b"\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    chunks = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert await events(*chunks) == await events(sent)


@pytest.mark.parametrize("rest", [b"data: b", b"data: b\n", b"event: x", b"da", b"id: 1\ndata: b\r\n"])
async def test_a_stream_that_ends_within_an_event_is_broken(rest):
    with pytest.raises(NodeFailed, match="middle"):
        await events(b"data: a\n\n", rest)


@pytest.mark.parametrize(
    "endless",
    [
        [b"data: aaaa"] * 300,
        [b"data: a\n"] * 300,
        [b"data: " + b"a" * 2000 + b"\n\n"],
        [b": aaa"] * 300,
    ],
)
async def test_an_event_has_a_limit(endless):
    with pytest.raises(NodeFailed, match="larger than 1000"):
        await events(*endless)


async def test_comments_between_events_are_no_event_and_have_no_limit():
    assert await events(*[b": ping\n\n"] * 500, b"data: a\n\n") == [(MESSAGE, b"a")]


class Node:
    """A node that streams, after its head, what it is given piece by piece."""

    def __init__(self, *pieces, every_s=0.0, endless=False):
        self.pieces, self.every_s, self.endless = pieces, every_s, endless
        self.left = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._client = NodeClient(f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}")
        return self._client

    async def __aexit__(self, *_):
        await self._client.close()
        self._server.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    break
                body = json.dumps(SERVER).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            while True:
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self.every_s)
                if not self.endless:
                    break
        writer.close()
        self.left.set()


async def answers(client, timeout_s=10.0):
    responses = client.stream("m", None, InferRequest(inputs=[]), timeout_s=timeout_s)
    return [answer.outputs[0].array.tolist() async for answer in responses]


async def test_a_stream_with_comments_and_other_line_ends_is_served():
    first = (b": ping\r\n\r\n", b"retry: 5\r\n\r\n", b"data: " + response(1), b"\r\n\r\n: ping\n\n")
    async with Node(HEAD, *first, b"data: " + response(2) + b"\n\n") as client:
        assert await answers(client) == [[1], [2]]


async def test_an_error_in_the_middle_is_one():
    async with Node(HEAD, b"data: " + response(1) + b"\n\n", b"event: error\ndata: x\n\n") as client:
        with pytest.raises(ExecutionFailed):
            await answers(client)


DRIPPING = {
    "comments": ((HEAD,), b":\n"),
    "pings": ((HEAD, b"data: " + response(1) + b"\n\n"), b": ping\n\n"),
    "an event that does not end": ((HEAD, b"data: "), b" "),
    "a head that does not end": ((b"HTTP/1.1 200 OK\r\n",), b"X-Y: z\r\n"),
}


@pytest.mark.parametrize("what", DRIPPING)
async def test_a_node_that_drips_is_waited_for_no_longer_than_for_a_silent_one(what):
    before, drop = DRIPPING[what]
    node = Node(*before, *[drop] * 400, every_s=0.05)
    async with node as client:
        with pytest.raises(NodeSilent):
            await asyncio.wait_for(answers(client, timeout_s=0.5), 10)
        await asyncio.wait_for(node.left.wait(), 10)


async def test_each_event_has_its_own_time_and_how_long_it_is_used_is_not_counted():
    async with Node(
        HEAD, *[b"data: " + response(n) + b"\n\n" for n in range(6)], every_s=0.1
    ) as client:
        got = 0
        request = InferRequest(inputs=[])
        async for _ in client.stream("m", None, request, timeout_s=0.45):
            got += 1
            if got == 1:
                await asyncio.sleep(0.6)
        assert got == 6
