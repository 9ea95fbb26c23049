"""The gateway's HTTP/1.1 protocol under what clients may do with a connection."""

import asyncio
import contextlib

import pytest
from support.asgi import on_a_port

from bedside import http
from bedside.http import serve_http
from bedside.listen import listen_tcp

LARGE = 3 * 1024 * 1024


async def echo(scope, receive, send):
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0)
    if scope["path"] == "/fails":
        message = "on purpose"
        raise ValueError(message)
    content = scope["path"].encode() + b":" + body
    length = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    for part in (content[:3], content[3:]) if scope["path"] == "/parts" else ():
        await send({"type": "http.response.body", "body": part, "more_body": True})
        content = b""
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
async def port():
    async with on_a_port(echo) as chosen:
        yield chosen
    # A connection's own task ends with it.
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "http connection"]


@contextlib.asynccontextmanager
async def connection(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(path, body):
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path, len(body), body)


async def answer(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
    )
    return int(head.split()[1]), await asyncio.wait_for(reader.readexactly(length), 20)


async def test_pipelined_requests_are_answered_in_order(port):
    async with connection(port) as (reader, writer):
        paths = [b"/slow", b"/b", b"/slow", b"/d"]
        writer.write(b"".join(post(path, b"x" * size) for size, path in enumerate(paths)))
        for size, path in enumerate(paths):
            assert await answer(reader) == (200, path + b":" + b"x" * size)


async def test_a_connection_serves_one_request_after_another(port):
    async with connection(port) as (reader, writer):
        for size in (0, 1, 70_000, LARGE, 2):
            writer.write(post(b"/a", b"y" * size))
            assert await answer(reader) == (200, b"/a:" + b"y" * size)


async def test_a_chunked_body_in_pieces_is_whole(port):
    async with connection(port) as (reader, writer):
        writer.write(b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b"one", b"two", b"z" * 100_000):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert await answer(reader) == (200, b"/c:onetwo" + b"z" * 100_000)


async def test_what_fails_is_500_and_leaves_other_connections_alone(port):
    async with connection(port) as (reader, writer), connection(port) as (other, asking):
        writer.write(post(b"/fails", b""))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert head.split()[1] == b"500"
        asking.write(post(b"/a", b"1"))
        assert await answer(other) == (200, b"/a:1")


async def test_a_caller_that_leaves_before_its_body_ends_leaves_nothing_behind(port):
    async with connection(port) as (_, writer):
        writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()
    async with connection(port) as (reader, writer):
        writer.write(post(b"/a", b"1"))
        assert await answer(reader) == (200, b"/a:1")


async def test_a_caller_is_told_that_the_connection_ends(port):
    async with connection(port) as (reader, writer):
        writer.write(b"GET /bye HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert await answer(reader) == (200, b"/bye:")
        assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_a_response_in_parts_and_one_without_a_body(port):
    async with connection(port) as (reader, writer):
        writer.write(post(b"/parts", b"123"))
        assert await answer(reader) == (200, b"/parts:123")
        writer.write(b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n" + post(b"/b", b""))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert b"content-length: 3" in head
        assert await answer(reader) == (200, b"/b:")


@pytest.mark.parametrize(
    "request_",
    [
        post(b"/b", b"x"),
        post(b"/a", b"x"),
        post(b"/parts", b"x"),
        b"HEAD /b HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["a head that is new", "a head that is known", "an answer in parts", "only a head"],
)
async def test_whoever_asks_while_the_server_stops_is_answered_and_told_that_it_was_the_last(
    monkeypatch, request_
):
    monkeypatch.setattr(http, "LAST_ANSWERS_S", 1.0)
    listener = listen_tcp("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve_http(echo, listener, stop, ready.set))
    await ready.wait()
    async with connection(listener.getsockname()[1]) as (reader, writer):
        writer.write(post(b"/a", b"x"))
        assert await answer(reader) == (200, b"/a:x")
        stop.set()
        await asyncio.sleep(0.3)
        writer.write(request_)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert head.count(b"connection: close") == 1
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"x") is (request_[:4] == b"POST")
    await asyncio.wait_for(serving, 20)
