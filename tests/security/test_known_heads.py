"""A head that is known again is served exactly as one that is read: whatever is sent, however it comes.

Seen to fail: without the length of the whole request, with only the beginning and the end of a head
compared, with a known head taken while a request is under way, without `_HOW_TO_READ`, with a call's
times kept, with a token's principal kept past its expiry, without an end to learning, with the address
of whoever sent a head first, and with heads that are kept for good.
"""

import asyncio
import gc
import json
import time

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support import make_site, publish_linear, records_of
from support.obliged import served
from support.sites import ROW
from uvicorn.server import ServerState

from audit.records import Problem
from bedside import serving
from bedside.http_known import NOTES, KnownHeadProtocol, KnownHeads
from bedside.http_protocol import WholeResponseProtocol
from policies import ModelAccess, Purpose, Role, TokenVerifier, build_bundle
from secure_gateway import asgi
from secure_gateway.consent.believe import Consents

TURNS = 12


class Wire(asyncio.Transport):
    """What a connection writes."""

    def __init__(self, extra=None):
        super().__init__(extra)
        self.written = b""
        self.closed = False

    def write(self, data):
        if not self.closed:
            self.written += data

    def writelines(self, parts):
        self.write(b"".join(parts))

    def close(self):
        self.closed = True

    abort = close

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def get_write_buffer_size(self):
        return 0


def config_of(app):
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, date_header=False, proxy_headers=False)  # fmt: skip
    config.load()
    return config


async def answers(protocol_class, chunks):
    """Return what an application saw of the requests in `chunks`, and what was written and closed."""
    seen, known = [], 0

    async def app(scope, receive, send):
        nonlocal known
        known += NOTES in scope
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            if not event["more_body"]:
                break
        parts = {name: value for name, value in scope.items() if name != NOTES}
        seen.append((parts, body))
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [
            (b"content-length", b"%d" % len(body))]})  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    loop = asyncio.get_running_loop()
    protocol = protocol_class(
        config=config_of(app), server_state=ServerState(), app_state={}, _loop=loop
    )
    wire = Wire()
    protocol.connection_made(wire)
    for chunk, turns in chunks:
        if wire.closed:
            break
        if chunk:
            protocol.data_received(chunk)
        for _ in range(turns):
            await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    written, closed = wire.written, wire.closed
    protocol.connection_lost(None)
    if protocol.worker is not None:
        await asyncio.wait([protocol.worker])
    return (seen, written, closed), known


def request(*fields, line=b"POST /v2/x HTTP/1.1", body=b"12345", end=b"\r\n"):
    return end.join((line, b"Host: x", *fields, b"Content-Length: %d" % len(body), b"", b"")) + body


PLAIN = request(b"Authorization: Bearer abc")
UNUSUAL = [
    request(b"Authorization: Bearer abd"),
    request(b"Authorization: Bearer abc", body=b"123456"),
    request(b"Authorization: Bearer abc", body=b""),
    request(b"Authorization: Bearer abc", body=PLAIN),
    request(b"Authorization: Bearer abc", line=b"GET /v2/x HTTP/1.1"),
    request(b"Authorization: Bearer abc", line=b"POST /v2/x HTTP/1.0"),
    request(b"Connection: close"),
    request(b"Connection: keep-alive"),
    request(b"Connection: upgrade", b"Upgrade: websocket"),
    request(b"Expect: 100-continue"),
    request(b"Content-Length: 5"),
    request(b"Content-Length: 50"),
    request(b"Transfer-Encoding: chunked"),
    request(b"Host: y"),
    request(b"Trailer: x"),
    request(b"Authorization: Bearer abc", end=b"\n"),
    b"POST /v2/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    b"\r\n" + PLAIN,
    PLAIN + PLAIN,
    b"GET /v2/x HTTP/1.1\r\nHost: x\r\n\r\n",
]


async def same(chunks):
    """Hold what was made of the chunks against what the parser alone makes of them; return how many
    heads were known again.
    """
    expected, _ = await answers(WholeResponseProtocol, chunks)
    found, known = await answers(KnownHeadProtocol, chunks)
    assert found == expected
    return known


async def test_equal_heads_are_known_again_and_each_request_has_its_own_body():
    chunks = [(PLAIN[:-5] + b"%05d" % n, TURNS) for n in range(5)]
    assert await same(chunks) == 4
    # Other bytes in between are read, and what comes after them is known or not by its own bytes.
    other = request(b"Authorization: Bearer abd")
    assert await same([(PLAIN, TURNS), (other, TURNS), (PLAIN, TURNS), (PLAIN, TURNS)]) == 1


@pytest.mark.parametrize("place", range(len(PLAIN)))
async def test_one_byte_that_differs_is_read_anew(place):
    for byte in (PLAIN[place] ^ 1, PLAIN[place] ^ 0x20, 0, 10, 13, ord(" "), ord(":")):
        changed = PLAIN[:place] + bytes([byte]) + PLAIN[place + 1 :]
        await same([(PLAIN, TURNS), (PLAIN, TURNS), (changed, TURNS), (PLAIN, TURNS)])


@pytest.mark.parametrize("number", range(len(UNUSUAL)))
async def test_what_is_not_plain_is_never_known(number):
    unusual = UNUSUAL[number]
    known = await same([(unusual, TURNS), (unusual, TURNS), (unusual, TURNS)])
    learnable = {0, 1, 2, 3, 7}
    assert (known > 0) == (number in learnable)
    await same([(PLAIN, TURNS), (unusual, TURNS), (PLAIN, TURNS), (PLAIN + unusual, TURNS)])


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([PLAIN, PLAIN, PLAIN, *UNUSUAL]), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.tuples(st.integers(0, 600), st.sampled_from([0, 1, 3, TURNS])), max_size=4),
)
def test_however_it_is_cut_and_however_fast_it_comes_it_is_read_the_same(sent, cuts):
    async def play():
        chunks = []
        for data, speed in sent:
            parts = [data]
            for place, turns in cuts if speed == 0 else ():
                last = parts.pop()
                chunks += [(part, TURNS) for part in parts]
                parts = [last[:place], last[place:]]
                chunks.append((parts.pop(0), turns))
            chunks += [(part, (TURNS, TURNS, 0, 1)[speed]) for part in parts]
        await same([(PLAIN, TURNS), *chunks, (PLAIN, TURNS)])

    asyncio.run(play())


async def test_a_head_that_always_changes_is_not_learnt_for_ever(monkeypatch):
    learnt = []
    learn = vars(KnownHeadProtocol)["data_received"].__globals__["KnownHead"].learn
    monkeypatch.setattr(
        "bedside.http_known.KnownHead.learn", lambda *given: learnt.append(given) or learn(*given)
    )
    chunks = [(request(b"X-Number: %d" % n), TURNS) for n in range(100)]
    assert await same(chunks) == 0
    assert len(learnt) < 20


class Connection:
    """One connection to a gateway that sends the same head again and again."""

    def __init__(self, url, token):
        host, _, port = url.removeprefix("http://").partition(":")
        self.address, self.token = (host, int(port)), token

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def ask(self, row=ROW, claims=b""):
        body = json.dumps(row).encode()
        self.writer.write(
            b"POST /v2/models/breast-cancer/infer HTTP/1.1\r\nHost: bedside\r\n"
            b"Authorization: Bearer %s\r\n%sContent-Length: %d\r\n\r\n%s"
            % (self.token.encode(), claims, len(body), body)
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = json.loads(await self.reader.readexactly(length))
        return int(head.split(b" ")[1]), body


@pytest.fixture
def site(tmp_path):
    made = make_site(tmp_path)
    publish_linear(made, tmp_path)
    return made


@pytest.fixture
def taken(monkeypatch):
    """The notes of each request whose head was known again."""
    notes = []
    take = KnownHeadProtocol._take

    def counted(self, known, data):
        take(self, known, data)
        notes.append(self.scope[NOTES])

    monkeypatch.setattr(KnownHeadProtocol, "_take", counted)
    return notes


@pytest.fixture
def gateways(monkeypatch):
    """The gateways that are served in this process."""
    made = []
    serve = serving.serve_gateway

    async def noted(gateway, *args, **named):
        made.append(gateway)
        await serve(gateway, *args, **named)

    monkeypatch.setattr("support.obliged.serve_gateway", noted)
    return made


def token_of(site):
    return site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=60)


async def test_connections_share_what_is_known_of_a_head_and_keep_their_addresses():
    heads = KnownHeads()

    async def app(scope, receive, send):
        seen.append((scope["client"], NOTES in scope, dict(scope["headers"])[b"authorization"]))
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def connection(port):
        made = KnownHeadProtocol(config=config_of(app), server_state=ServerState(), app_state={},
            heads=heads, _loop=asyncio.get_running_loop())  # fmt: skip
        wire = Wire({"peername": ("192.0.2.1", port)})
        made.connection_made(wire)
        return made, wire

    async def ask(protocol, authorization):
        protocol.data_received(request(b"Authorization: %s" % authorization))
        for _ in range(TURNS):
            await asyncio.sleep(0)

    seen = []
    connections = [connection(port) for port in (1001, 1002, 1003)]
    (one, _), (two, _), (three, _) = connections
    for authorization, protocol in ((b"a", one), (b"a", two), (b"b", three)) * 2:
        await ask(protocol, authorization)
    assert one.known is two.known
    assert one.known is not three.known
    assert len(heads) == 2
    assert [(client[1], known, text) for client, known, text in seen[3:]] == [
        (1001, True, b"a"), (1002, True, b"a"), (1003, True, b"b")]  # fmt: skip
    # A token is forgotten with the last connection that sent it.
    for protocol, wire in connections[:2]:
        wire.close()
        protocol.connection_lost(None)
        protocol.known = None
    del one, two, protocol, connections
    gc.collect()
    assert len(heads) == 1


def test_server_and_gateway_mean_the_same_notes():
    assert asgi.NOTES == NOTES


async def test_answers_and_records_are_each_requests_own(site, taken):
    rows = [json.loads(json.dumps(ROW).replace("0.1", f"0.{n}")) for n in range(1, 9)]
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        got = [await connection.ask(row) for row in rows]
    assert len(taken) == 7
    assert taken[-1], "nothing was kept of a head that is known"
    assert [status for status, _ in got] == [200] * 8
    assert len({json.dumps(answer["outputs"]) for _, answer in got}) == 8
    assert len({answer["parameters"]["bedside_record"] for _, answer in got}) == 8
    records = [record for record in records_of(site) if record.principal == "dr.adams"]
    assert len({record.id for record in records}) == 8
    assert sorted(record.time for record in records) == [record.time for record in records]


async def test_a_token_that_expires_meanwhile_is_refused_although_its_head_is_known(
    site, taken, monkeypatch
):
    now = 0.0
    monkeypatch.setattr(TokenVerifier.__init__, "__kwdefaults__", {
        **TokenVerifier.__init__.__kwdefaults__, "clock": lambda: time.time() + now})  # fmt: skip
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        assert [(await connection.ask())[0] for _ in range(3)] == [200] * 3
        now = 1000.0
        assert (await connection.ask())[0] == 401
        now = 0.0
        assert (await connection.ask())[0] == 200
    assert len(taken) == 4
    assert [record.problem for record in records_of(site)].count(Problem.TOKEN_EXPIRED) == 1


async def test_other_policies_count_from_the_next_request_on(site, taken, gateways):
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        assert [(await connection.ask())[0] for _ in range(3)] == [200] * 3
        engine = gateways[0].parts.engine
        access = ModelAccess(roles=(Role.ENGINEER,), purposes=(Purpose.TREAT,))
        engine.replace(
            build_bundle(
                ("base", "hipaa"),
                name="clinic",
                version=engine.bundle.version + 1,
                models={"breast-cancer": access},
            )
        )
        assert (await connection.ask())[0] == 403
    assert len(taken) == 3
    assert records_of(site)[-1].problem is Problem.POLICY_REFUSED


async def test_consent_is_asked_for_anew_for_each_request(site, taken, monkeypatch):
    consents = iter([True, False, True])

    monkeypatch.setattr(Consents, "believed", lambda *_, **__: next(consents))
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        for _ in range(3):
            await connection.ask()
    assert len(taken) == 2
    assert [record.consent for record in records_of(site)] == [True, False, True]


async def test_a_quota_is_used_up_by_requests_whose_head_is_known(tmp_path, taken):
    site = make_site(tmp_path, gateway={"limits": {"requests_per_day": 3}})
    publish_linear(site, tmp_path)
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        assert [(await connection.ask())[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    assert len(taken) == 4


async def test_a_deadline_counts_from_each_requests_own_beginning(site, taken):
    timeout = b"Bedside-Timeout: 5000\r\n"
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        assert [(await connection.ask(claims=timeout))[0] for _ in range(3)] == [200] * 3
        notes = taken[-1]
        headers, call = notes["infer"]
        # As if the first request with this head had come an hour ago.
        long_ago = call.started_ns - 3600 * 10**9
        notes["infer"] = headers, replace(call, started_ns=long_ago, deadline=call.deadline - 3600)
        assert (await connection.ask(claims=timeout))[0] == 200
    assert len(taken) == 3
    assert all(record.duration_us < 60_000_000 for record in records_of(site))


async def test_what_a_caller_claims_is_read_with_its_own_head(site, taken):
    async with served(site) as url, Connection(url, token_of(site)) as connection:
        for purpose in (b"TREAT", b"TREAT", b"HPAYM", b"ETREA", b"TREAT"):
            await connection.ask(claims=b"Bedside-Purpose: %s\r\n" % purpose)
    # As many bytes, and other ones: two of five heads are no purpose at all.
    assert len(taken) == 1
    problems = [record.problem for record in records_of(site)]
    assert problems == [None, None, Problem.FACTS_INVALID, Problem.FACTS_INVALID, None]
