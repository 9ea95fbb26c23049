"""Callers that stall, leave or close their side: what they hold is free again, and it is recorded.

Seen to fail: with an hour instead of the site's `unread_timeout_s`, over REST and over gRPC, with
`eof_received` left out, with nothing said to who reads a gRPC stream at last, with the initial
metadata sent together with the first response, with `Cycle._lost` looking only at `disconnected`, and
with a caller that `ended` told of a failure.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import grpc.aio
import pytest
from grpc import StatusCode
from support import GatewayProcess, call, linear_model, make_site, records_of
from support.grpc import ModelStreamInferResponse, bearer, row
from support.models import stepping_model
from support.raw import read_to_end
from support.sites import ROW, free_port

from audit.records import Action, Outcome
from bedside.config import EXAMPLE_ACCESS
from inference_node import NodeSettings
from inference_node.schema import SERVICE

PATIENCE_S = 60


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    repository = folder / "repository"
    linear_model(repository / "linear" / "1" / "model.onnx")
    stepping_model(repository, steps=100_000)
    config = repository / "halving" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 6000"))
    site = make_site(
        folder,
        node=NodeSettings(repository=repository),
        models=dict.fromkeys(("linear", "halving"), EXAMPLE_ACCESS),
        gateway={"unread_timeout_s": 1.0, "grpc_port": free_port()},
    )
    with GatewayProcess(site, folder) as running:
        yield running


def asked(gateway, path, held_back=0):
    """Return a connection on which a request was sent, with little room for what comes back.

    The last `held_back` bytes of its body are not sent yet.
    """
    body = json.dumps(ROW).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", urlsplit(gateway.url).port))
    connection.sendall(
        b"POST /v2/models/%b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n\r\n%b"
        % (path, gateway.token().encode(), len(body), body[: len(body) - held_back])
    )
    return connection


def wait_until(condition):
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def last_end(gateway):
    return [one for one in records_of(gateway.site) if one.action is Action.STREAM_END][-1]


def test_a_stalled_reader_of_a_stream_is_cut_off_and_its_place_is_free(gateway):
    with asked(gateway, b"halving/infer_stream"):
        wait_until(lambda: gateway.under_way("halving") == 1)
        wait_until(lambda: gateway.under_way("halving") == 0)
        gateway.stop()
    assert_left(gateway)
    gateway.start()


def test_who_leaves_a_stream_with_requests_waiting_behind_it_is_seen_to_leave(gateway):
    begun = gateway.log.stat().st_size
    with asked(gateway, b"halving/infer_stream") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        head = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(head * 3)
        # Data that was not read makes a reset of the goodbye.
    wait_until(lambda: gateway.under_way("halving") == 0)
    gateway.stop()
    end = last_end(gateway)
    assert (end.outcome, end.status) == (Outcome.ABANDONED, 499)
    assert end.responses < 100_000
    assert b"unforeseen" not in gateway.log.read_bytes()[begun:]
    gateway.start()


async def test_a_stalled_reader_of_a_grpc_stream_is_cut_off_and_told_once_it_reads(gateway):
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        stream = await stalled(gateway, channel, row(model="halving"))
        read = await read_until_cut_off(stream)
    await asyncio.to_thread(gateway.stop)
    assert 0 < read <= assert_left(gateway)
    gateway.start()


async def test_one_without_room_for_its_first_answer_is_told_too(gateway):
    rows = 6000
    request = row(model="halving")
    request.inputs[0].shape[0] = rows
    request.raw_input_contents[0] *= rows
    # The smallest windows that there are, and no larger ones once it goes fast.
    narrow = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    address = gateway.grpc_address
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(address, narrow) as channel:
        stream = await stalled(gateway, channel, request)
        assert await read_until_cut_off(stream) == 1


async def test_a_stalled_reader_of_a_grpc_stream_that_leaves_at_last_is_no_error(gateway):
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(gateway.grpc_address) as channel:
        stream = await stalled(gateway, channel, row(model="halving"))
        stream.cancel()
    await asyncio.to_thread(gateway.stop)
    assert_left(gateway)
    assert "grpc met" not in gateway.log.read_text()
    gateway.start()


async def stalled(gateway, channel, request):
    """Return a stream whose answers nobody took, once the gateway has cut it off.

    Its client goes on answering pings and everything else.
    """
    infer = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer", response_deserializer=ModelStreamInferResponse.FromString
    )
    stream = infer(metadata=(bearer(gateway.token()),))
    await stream.write(request.SerializeToString())
    model = request.model_name
    await asyncio.to_thread(wait_until, lambda: gateway.under_way(model) == 1)
    await asyncio.to_thread(wait_until, lambda: gateway.under_way(model) == 0)
    return stream


async def read_until_cut_off(stream):
    read = 0
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await stream.read() is not grpc.aio.EOF:
            read += 1
    assert await stream.code() is StatusCode.DEADLINE_EXCEEDED
    return read


def assert_left(gateway):
    """See that the last stream was left before it was through; return how far it came."""
    end = last_end(gateway)
    assert (end.outcome, end.status) == (Outcome.ABANDONED, 499)
    assert 0 < end.responses < 100_000
    return end.responses


def test_who_closes_its_side_after_asking_is_answered(gateway):
    with asked(gateway, b"linear/infer") as connection:
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["model_name"] == "linear"


def test_who_closes_its_side_before_a_stream_began_is_told_of_no_failure(gateway):
    for _ in range(20):
        with asked(gateway, b"halving/infer_stream") as connection:
            connection.shutdown(socket.SHUT_WR)
            received = read_to_end(connection)
        assert not received or received.startswith(b"HTTP/1.1 200")


def test_told_to_stop_it_answers_what_was_begun_and_takes_nothing_more(gateway):
    address = ("127.0.0.1", urlsplit(gateway.url).port)
    with asked(gateway, b"linear/infer", held_back=1) as connection:
        # A request that is answered after it was sent shows that the gateway has read this far.
        assert call("GET", f"{gateway.url}/v2/health/ready").status == 200
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        wait_until(lambda: refuses(address))
        connection.sendall(json.dumps(ROW).encode()[-1:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    stopping.join()
    assert records_of(gateway.site)[-1].outcome is Outcome.SERVED
    gateway.start()


def refuses(address):
    try:
        socket.create_connection(address, timeout=PATIENCE_S).close()
    except ConnectionError:
        return True
    return False
