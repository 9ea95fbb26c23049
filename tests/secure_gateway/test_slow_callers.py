"""Callers that stall, leave or close their side: what they hold is free again, and it is recorded.

Seen to fail: with an hour instead of the site's `unread_timeout_s`, and with `eof_received` left out.
"""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from support import GatewayProcess, call, linear_model, make_site, records_of
from support.models import stepping_model
from support.sites import ROW

from audit.records import Action, Outcome
from bedside.config import EXAMPLE_ACCESS
from inference_node import NodeSettings
from policies import Role

PATIENCE_S = 60


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    repository = folder / "repository"
    linear_model(repository / "linear" / "1" / "model.onnx")
    stepping_model(repository, steps=100_000)
    site = make_site(
        folder,
        node=NodeSettings(repository=repository),
        models=dict.fromkeys(("linear", "halving"), EXAMPLE_ACCESS),
        gateway={"unread_timeout_s": 1.0},
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


def under_way(gateway, model):
    reply = call("GET", f"{gateway.url}/metrics", token=gateway.token(role=Role.OPERATOR))
    name = f'bedside_gateway_requests_in_flight{{model="{model}"}}'
    return next(
        (float(line.split()[-1]) for line in reply.body.decode().splitlines() if line.startswith(name)),
        None,
    )


def wait_until(condition):
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_stalled_reader_of_a_stream_is_cut_off_and_its_place_is_free(gateway):
    with asked(gateway, b"halving/infer_stream"):
        wait_until(lambda: under_way(gateway, "halving") == 1)
        wait_until(lambda: under_way(gateway, "halving") == 0)
        gateway.stop()
    ends = [one for one in records_of(gateway.site) if one.action is Action.STREAM_END]
    assert [(end.outcome, end.status) for end in ends] == [(Outcome.ABANDONED, 499)]
    assert 0 < ends[0].responses < 100_000
    gateway.start()


def test_who_closes_its_side_after_asking_is_answered(gateway):
    with asked(gateway, b"linear/infer") as connection:
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["model_name"] == "linear"


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
