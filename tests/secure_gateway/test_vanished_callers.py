"""Callers over REST that are gone before they are answered: their work ends, and that is recorded.

Seen to fail: with the work left to go on, with a closed side taken for a lost connection, and with the
record of a request that is left while it is written not counted; and with one run in the cache for all
that ask the same, which the first of them takes with it.
"""

import asyncio
import json
import socket
import struct

import pytest
from support import make_site, publish_linear, records_of
from support.caching import Model, cache, exchange
from support.held import Held
from support.sites import ROW

from audit import Log
from audit.records import Outcome
from bedside.compose import open_gateway
from bedside.listen import listen_tcp
from bedside.serving import log_kind_only, serve_gateway
from policies import Role

PATIENCE_S = 20


class Served:
    def __init__(self, site, gateway, address, stop, serving):
        self.site = site
        self.gateway = gateway
        self.address = address
        self.stop = stop
        self.serving = serving
        self.token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)

    async def ask(self):
        """Return a connection on which a request was sent."""
        body = json.dumps(ROW).encode()
        connection = socket.socket()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, self.address)
        await loop.sock_sendall(
            connection,
            b"POST /v2/models/breast-cancer/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self.token.encode(), len(body), body),
        )
        return connection

    async def records(self):
        self.stop.set()
        await self.serving
        return records_of(self.site)

    def measured(self, name):
        return sum(
            sample.value
            for collector in self.gateway.collectors
            for metric in collector.collect()
            for sample in metric.samples
            if sample.name == name
        )

    @property
    def under_way(self):
        return self.measured("bedside_gateway_requests_in_flight")

    @property
    def counted(self):
        return self.measured("bedside_gateway_requests_total")


def vanish(connection):
    """Reset the connection, as the system does for a program that dies with answers unread."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
async def served(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    stop, ready = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(log_kind_only)
    gateway = await open_gateway(site)
    listener = listen_tcp("127.0.0.1", 0)
    address = listener.getsockname()
    serving = asyncio.create_task(serve_gateway(gateway, listener, stop, ready.set))
    await ready.wait()
    try:
        yield Served(site, gateway, address, stop, serving)
    finally:
        stop.set()
        await serving


async def test_a_caller_whose_connection_is_lost_ends_its_work_and_is_recorded(served, monkeypatch):
    held = Held(monkeypatch)
    async with asyncio.timeout(PATIENCE_S):
        staying, leaving = await served.ask(), await served.ask()
        await held.begun(2)
        assert served.under_way == 2
        vanish(leaving)
        await held.cancelled.wait()
        held.go.set()
        with staying:
            answer = await asyncio.get_running_loop().sock_recv(staying, 65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert served.under_way == 0
    left, kept = await served.records()
    assert (left.outcome, left.status, left.placement) == (Outcome.ABANDONED, 499, "node:local")
    assert kept.outcome is Outcome.SERVED


async def test_a_caller_that_closes_its_side_while_it_waits_is_answered(served, monkeypatch):
    held = Held(monkeypatch)
    async with asyncio.timeout(PATIENCE_S):
        with await served.ask() as connection:
            await held.begun()
            connection.shutdown(socket.SHUT_WR)
            # The gateway has seen it once it has seen what another one sends after it.
            with await served.ask():
                await held.begun(2)
                held.go.set()
                answer = await asyncio.get_running_loop().sock_recv(connection, 65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not held.cancelled.is_set()


@pytest.mark.parametrize("earlier", [0, 3])
async def test_what_is_left_while_it_is_recorded_is_recorded_and_counted_once(
    served, monkeypatch, earlier
):
    loop, append = asyncio.get_running_loop(), Log.append
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(earlier):
            with await served.ask() as connection:
                await loop.sock_recv(connection, 65536)
        waiting, appended = asyncio.Event(), []
        cancelled = asyncio.Event()

        def never(log, leaf, *meanwhile):
            appended.append(append(log, leaf, *meanwhile))
            waits = loop.create_future()
            waits.add_done_callback(lambda _: cancelled.set())
            waiting.set()
            return waits

        monkeypatch.setattr(Log, "append", never)
        connection = await served.ask()
        await waiting.wait()
        vanish(connection)
        await cancelled.wait()
        monkeypatch.undo()
    assert served.counted == earlier + 1
    assert len(await served.records()) == earlier + 1


async def test_one_that_leaves_takes_no_answer_from_others_that_ask_the_same():
    kept, go, begun = cache(), asyncio.Event(), asyncio.Semaphore(0)

    async def run(asked):
        begun.release()
        await go.wait()
        return await Model()(asked)

    async with asyncio.timeout(PATIENCE_S):
        leaving, staying = (asyncio.create_task(kept.recall(exchange(), run)) for _ in range(2))
        for _ in range(2):
            await begun.acquire()
        leaving.cancel()
        await asyncio.wait({leaving})
        go.set()
        assert (await staying)[1] is False
        assert (await kept.recall(exchange(), run))[1] is True
