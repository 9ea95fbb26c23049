"""What a caller may hold open, and for how long: heads, bodies, answers that nobody reads.

The times are made short here; the server, its event loop and its sockets are the real ones.
"""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest
from support.asgi import on_a_port

from bedside import http_protocol

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


async def answering(scope, receive, send):
    """Read the body, then answer with its length."""
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    await answer(send, str(size).encode())


async def answer(send, body):
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def serving(app=answering, unread_timeout_s=0.2):
    return on_a_port(app, unread_timeout_s=unread_timeout_s)


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_then_end(reader):
    received = await asyncio.wait_for(reader.read(), 10)
    return int(received.split(b" ")[1]) if received else None


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(http_protocol, "BODY_TIMEOUT_S", 0.2)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST",
        HEAD,
        HEAD + b"X: ",
        HEAD + b"Content-Length: 5\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        HEAD + b"Content-Length: 0\r\n\r\n" + HEAD,
    ],
    ids=["nothing", "a word", "half a head", "half a field", "half a body", "half a chunk", "a second"],
)
async def test_whoever_stops_in_the_middle_is_not_waited_for(hurried, sent):
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), 10)
        assert received.count(b"HTTP/1.1 200") == (1 if sent.endswith(HEAD) and sent != HEAD else 0)


async def test_a_slow_drip_of_a_head_is_cut_off_however_long_it_goes_on(hurried):
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(HEAD)
        ended = asyncio.create_task(reader.read())
        dripped = 0
        while not ended.done():
            assert dripped < 1000
            writer.write(b"X-%d: y\r\n" % dripped)
            dripped += 1
            await asyncio.wait({ended}, timeout=0.02)
        assert dripped > 2
        assert ended.exception() is not None or ended.result() == b""


async def test_a_slow_drip_of_a_body_is_cut_off_before_its_end(hurried):
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        ended = asyncio.create_task(reader.read())
        dripped = 0
        while not ended.done():
            assert dripped < 999
            writer.write(b"x")
            dripped += 1
            await asyncio.wait({ended}, timeout=0.02)
        assert ended.exception() is not None or ended.result() == b""


async def test_a_body_that_comes_fast_enough_may_take_longer(hurried, monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_LEAST_BYTES_PER_S", 100)
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Connection: close\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            writer.write(b"x" * 100)
            await writer.drain()
            # Each part buys a second; without them the time would be over after two of these pauses.
            await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"1000")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (HEAD + b"X: " + b"y" * 5_000_000, 431),
        (b"POST /" + b"y" * 5_000_000, 431),
        (HEAD + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200),
    ],
    ids=["many fields", "a long field", "an endless field", "an endless path", "large and allowed"],
)
async def test_a_head_has_a_limit_also_while_it_is_not_complete(head, status):
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        try:
            # The rest of it may be lost with the connection, and the answer with it.
            assert await status_then_end(reader) in (status, None)
        except ConnectionResetError:
            assert status == 431
        writer.close()


async def test_an_answer_that_nobody_reads_is_not_kept_for_ever(hurried, monkeypatch):
    from uvicorn import config

    large = b"x" * (32 << 20)

    async def app(scope, receive, send):
        await answer(send, large)

    original = config.Config.__init__

    def hasty(self, *args, **kwargs):
        original(self, *args, **{**kwargs, "timeout_keep_alive": 0.2})

    monkeypatch.setattr(config.Config, "__init__", hasty)
    async with serving(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as unread:
            unread.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            unread.setblocking(False)
            loop = asyncio.get_running_loop()
            received = 0
            # Nothing is read for longer than it may stay unread.
            await asyncio.sleep(1.5)
            with contextlib.suppress(ConnectionResetError):
                while chunk := await asyncio.wait_for(loop.sock_recv(unread, 1 << 20), 10):
                    received += len(chunk)
            assert received < len(large)


def stall(port, request):
    """Return a connection on which `request` was sent and nothing is read, with little room in it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request)
    return connection


async def streaming_until_closed(receive, send):
    """Send events for as long as the caller is there, as streams do."""

    async def stream():
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 8192, "more_body": True})
            await asyncio.sleep(0)

    sending = asyncio.create_task(stream())
    while (await receive())["type"] != "http.disconnect":
        pass
    sending.cancel()
    await asyncio.wait({sending})


async def test_a_stream_that_nobody_reads_ends_and_its_work_with_it():
    ended = asyncio.Event()

    async def app(scope, receive, send):
        await streaming_until_closed(receive, send)
        ended.set()

    async with serving(app) as port:
        with stall(port, HEAD + b"Content-Length: 0\r\n\r\n"):
            await asyncio.wait_for(ended.wait(), 30)


async def test_a_stream_that_is_read_slowly_goes_on():
    over = asyncio.Event()

    async def app(scope, receive, send):
        await streaming_until_closed(receive, send)
        over.set()

    # Its windows pass many times over; in each of them it reads more than it must.
    async with serving(app, unread_timeout_s=0.5) as port:
        with stall(port, HEAD + b"Content-Length: 0\r\n\r\n") as reader:
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            for _ in range(40):
                assert await asyncio.wait_for(loop.sock_recv(reader, 65536), 10)
                await asyncio.sleep(0.05)
            assert not over.is_set()
        await asyncio.wait_for(over.wait(), 30)


@pytest.mark.parametrize("size", [40_000, 32 << 20])
async def test_a_connection_that_is_to_close_does_not_wait_for_its_reader_for_ever(size):
    answered, closed = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await answer(send, b"x" * size)
        answered.set()

    protocol = http_protocol.WholeResponseProtocol
    made, lost = protocol.connection_made, protocol.connection_lost

    def narrow(self, transport):
        made(self, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def told(self, exc):
        lost(self, exc)
        closed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "connection_made", narrow)
        patch.setattr(protocol, "connection_lost", told)
        async with serving(app) as port:
            with stall(port, HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n"):
                await asyncio.wait_for(answered.wait(), 30)
                await asyncio.wait_for(closed.wait(), 30)


async def test_who_closes_its_side_still_gets_what_it_asked_for():
    began, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        began.set()
        await go_on.wait()
        await answering(scope, receive, send)

    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 3\r\n\r\nabc")
        await began.wait()
        writer.write_eof()
        await asyncio.sleep(0.2)
        go_on.set()
        received = await asyncio.wait_for(reader.read(), 10)
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith(b"3")


async def test_all_of_what_was_asked_in_advance_is_answered_before_a_closed_side_is_followed():
    one = HEAD + b"Content-Length: 3\r\n\r\nabc"
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(one * 3)
        writer.write_eof()
        received = await asyncio.wait_for(reader.read(), 10)
        assert received.count(b"HTTP/1.1 200") == 3


async def test_a_closed_side_in_the_middle_of_a_request_ends_it():
    async with serving() as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 30\r\n\r\nabc")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_who_listens_for_callers_that_hang_up_is_told_of_a_closed_side():
    told = asyncio.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with serving(app) as port, connected(port) as (_, writer):
        writer.write(HEAD + b"Content-Length: 3\r\n\r\nabc")
        writer.write_eof()
        await asyncio.wait_for(told.wait(), 10)


async def test_an_error_that_nobody_foresaw_is_logged_without_what_it_says(caplog):
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("what a patient sent")

    async with serving(failing) as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        assert await status_then_end(reader) == 500
    assert "ValueError" in caplog.text
    assert "patient" not in caplog.text
