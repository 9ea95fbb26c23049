"""The same bytes are the same requests, wherever the network cuts them.

Seen to fail: with fields behind a body taken for the head's, with the body behind an offered upgrade
left to the parser, with a known head compared by its length only.
"""

import asyncio
import socket
from itertools import accumulate, pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.asgi import on_a_port

FIELDS = (
    b"X-A: b\r\n",
    b"X-A: d\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Upgrade: foo\r\nConnection: keep-alive, Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Authorization: Bearer a\r\n",
    b"TE: trailers\r\n",
)
BODIES = (b"", b"x", b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\n", b"{}" * 40)
TRAILERS = (b"", b"Authorization: Bearer b\r\n", b"X-A: c\r\nTE: x\r\n", b"Host: y\r\n")


@st.composite
def requests(draw, *, last):
    """One request that HTTP allows, whatever it offers."""
    path = draw(st.sampled_from((b"/a", b"/b", b"/c?d=%20")))
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))
    body = draw(st.sampled_from(BODIES))
    framing = draw(st.sampled_from(("length", "chunks", "none")))
    if framing == "length":
        fields.append(b"Content-Length: %d\r\n" % len(body))
    elif framing == "chunks":
        fields.append(b"Transfer-Encoding: chunked\r\n")
        size = draw(st.integers(1, 40))
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
        body = b"".join(chunks) + b"0\r\n" + draw(st.sampled_from(TRAILERS)) + b"\r\n"
    else:
        body = b""
    if last:
        fields.append(b"Connection: close\r\n")
    return b"".join((b"POST %s HTTP/1.1\r\nHost: x\r\n" % path, *fields, b"\r\n", body))


@st.composite
def streams(draw):
    """A few requests of one connection, some again or almost so, and where they are cut."""
    several = []
    for one in draw(st.lists(requests(last=False), max_size=3)):
        likeness = one.replace(b" /a ", b" /b ").replace(b"X-A: b", b"X-A: d")
        several += [one, *draw(st.lists(st.sampled_from((one, likeness)), max_size=2))]
    several.append(draw(requests(last=True)))
    ends = list(accumulate(len(one) for one in several))
    cuts = draw(st.sets(st.integers(1, ends[-1] - 1), max_size=6))
    # A head is known again where requests come one by one.
    cuts |= set(ends[:-1]) if draw(st.booleans()) else set()
    data = b"".join(several)
    return [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]


class Heard:
    """An application that answers with what it was asked."""

    def __init__(self):
        self.requests = []

    async def __call__(self, scope, receive, send):
        fields = sorted(field for field in scope["headers"] if field[0] != b"upgrade")
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                break
            body += event["body"]
            if not event["more_body"]:
                break
        self.requests.append((scope["path"], scope["query_string"], fields, body))
        head = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"ok"})


async def told(port, parts):
    """Return what is answered to `parts`, each of which the server reads by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.001)
        received = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
    return received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(streams(), min_size=1, max_size=5))
def test_requests_do_not_depend_on_where_packets_end(several):
    async def compared():
        app = Heard()
        async with on_a_port(app) as port:
            for parts in several:
                app.requests.clear()
                whole = await told(port, [b"".join(parts)])
                at_once = list(app.requests)
                app.requests.clear()
                assert await told(port, parts) == whole
                assert app.requests == at_once
                assert not [one for one in at_once if one[0] == "/inner"]
                assert whole.count(b"200 OK") == len(at_once)

    asyncio.run(compared())
