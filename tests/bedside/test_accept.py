"""Accepting connections: many in a turn of the loop, and no failing in a circle where files run out.

Seen to fail: with `AT_ONCE` 1 the first test counts forty turns; with EMFILE missing in `EXHAUSTED` the
second fails; with `close` not cancelling the timer, the third sees it accept again.
"""

import asyncio
import errno
import logging
import socket
from collections import Counter

import pytest
import uvloop

from bedside import accept
from bedside.accept import Acceptor
from bedside.listen import listen_tcp

CALLERS = 40


class Protocol(asyncio.Protocol):
    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        self.made(transport)


def test_whoever_comes_at_once_is_heard_in_the_same_turn_of_the_loop():
    turns = Counter()

    async def main():
        listener, turn, all_made = listen_tcp("127.0.0.1", 0), 0, asyncio.Event()
        transports, loop = [], asyncio.get_running_loop()

        def made(transport):
            transports.append(transport)
            turns[turn] += 1
            if len(transports) == CALLERS:
                all_made.set()

        def next_turn():
            nonlocal turn
            turn += 1
            if not all_made.is_set():
                loop.call_soon(next_turn)

        callers = [socket.create_connection(listener.getsockname()) for _ in range(CALLERS)]
        acceptor = Acceptor(listener, lambda: Protocol(made))
        next_turn()
        await asyncio.wait_for(all_made.wait(), 30)
        acceptor.close()
        await acceptor.wait_closed()
        for transport in transports:
            transport.abort()
        for caller in callers:
            caller.close()
        listener.close()

    uvloop.run(main())
    # On loopback what was connected before is there to be accepted, all of it.
    assert len(turns) <= 2


class Exhausted(socket.socket):
    """A listener that the system gives no files for, twice."""

    failures = 2

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_files_it_pauses_says_so_and_goes_on_later(monkeypatch, caplog):
    monkeypatch.setattr(accept, "PAUSE_S", 0.01)
    caplog.set_level(logging.ERROR)
    made = asyncio.get_running_loop().create_future()
    with Exhausted(fileno=listen_tcp("127.0.0.1", 0).detach()) as listener:
        acceptor = Acceptor(listener, lambda: Protocol(made.set_result))
        with socket.create_connection(listener.getsockname()):
            transport = await asyncio.wait_for(made, 30)
            transport.abort()
        acceptor.close()
        await acceptor.wait_closed()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "Too many open files" in caplog.text


async def test_after_it_was_closed_while_it_paused_it_never_accepts_again(monkeypatch):
    monkeypatch.setattr(accept, "PAUSE_S", 0.01)
    with Exhausted(fileno=listen_tcp("127.0.0.1", 0).detach()) as listener:
        paused = asyncio.get_running_loop().create_future()
        acceptor = Acceptor(listener, lambda: pytest.fail("it accepted"))
        pause = acceptor._pause

        def pausing(error):
            pause(error)
            paused.set_result(None)

        monkeypatch.setattr(acceptor, "_pause", pausing)
        with socket.create_connection(listener.getsockname()):
            await asyncio.wait_for(paused, 30)
            acceptor.close()
            resumed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.05, resumed.set_result, None)
            await resumed
        assert listener.failures == 1


async def test_a_listener_that_would_wait_for_the_next_caller_stalls_nobody():
    # Seen to fail without `setblocking` in `Acceptor`: the turn that takes the last caller never ends.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = Acceptor(listener, asyncio.Protocol)
        assert not listener.getblocking()
        acceptor.close()
