"""Hypothesis over inference bodies: on the codec, and on a live gateway's socket, byte by byte.

Seen to fail: with `RecursionError` or `UnicodeDecodeError` left out of `inference_node.MALFORMED`.
"""

import contextlib
import json
import socket

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import call
from support.raw import STATUS, connect, exchange
from support.sites import ROW

from inference_node import InputInvalid, decode_request, decode_response
from inference_node.oip import DTYPES

NAMES = st.sampled_from(["x", "y", "", "\N{SNOWMAN}"]) | st.text(max_size=5)
NUMBERS = (
    st.integers(-3, 5)
    | st.integers()
    | st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), True, None, 1.5, "2"])
)
SHAPES = st.lists(NUMBERS, max_size=4) | st.lists(st.just(1), min_size=16, max_size=18)
LEAVES = NUMBERS | st.floats() | st.text(max_size=3)
DATA = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@st.composite
def tensors(draw):
    tensor = {
        "name": draw(NAMES),
        "shape": draw(SHAPES),
        "datatype": draw(st.sampled_from([*DTYPES, "FP33", ""])),
    }
    how = draw(st.sampled_from(["data", "binary", "both", "neither"]))
    if how in ("data", "both"):
        tensor["data"] = draw(DATA)
    if how in ("binary", "both"):
        tensor["parameters"] = {"binary_data_size": draw(NUMBERS)}
    return tensor


@st.composite
def bodies(draw):
    """Nearly a request: right in form, and wrong in any of its numbers, or cut, or with more behind."""
    outputs = draw(st.none() | st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2))
    head = {"inputs": draw(st.lists(tensors(), max_size=3))}
    if outputs is not None:
        head["outputs"] = outputs
    encoded = json.dumps(head).encode(errors="surrogatepass")
    tail = draw(st.binary(max_size=40) | st.lists(st.integers(0, 9), max_size=6).map(_texts))
    body = encoded + tail
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    length = draw(st.just(len(encoded)) | st.integers(0, len(body) + 3) | st.none())
    return body, length


def _texts(lengths):
    """Return BYTES elements whose lengths are now and then not those that they state."""
    return b"".join(
        length.to_bytes(4, "little") + b"a" * (length if length < 7 else 1) for length in lengths
    )


@settings(max_examples=600)
@given(bodies())
def test_any_body_is_a_request_or_is_refused(made):
    body, length = made
    for decode in (decode_request, decode_response):
        with contextlib.suppress(InputInvalid):
            decode(body, header_length=length)


@settings(max_examples=200)
@given(st.sampled_from([b"[", b'{"a":', b'{"inputs":[', b"[["]), st.integers(1, 50_000), bodies())
def test_any_depth_is_refused(opening, depth, made):
    for body in (opening * depth, made[0].replace(b"[", opening * depth, 1)):
        for decode in (decode_request, decode_response):
            with contextlib.suppress(InputInvalid):
                decode(body)


def request(gateway, body, *fields, path=b"/v2/models/breast-cancer/infer"):
    return b"".join(
        (
            b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ",
            gateway.token().encode() + b"\r\n",
            *fields,
            b"Content-Length: %d\r\n\r\n" % len(body),
            body,
        )
    )


LIVE = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Use:
    """What the gateway's process holds: files and sockets, threads, memory."""

    def __init__(self, gateway):
        self._process = psutil.Process(gateway.child.pid)

    def files(self):
        return self._process.num_fds()

    def threads(self):
        return self._process.num_threads()

    def memory(self):
        return self._process.memory_info().rss


@pytest.fixture
def nothing_kept(gateway):
    """Compare what the gateway holds before and after; afterwards it serves as before."""
    assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
    use = Use(gateway)
    files, threads, memory = use.files(), use.threads(), use.memory()
    yield
    assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
    for _ in range(2000):
        # Sockets that were just closed are let go of within a turn of its loop.
        if use.files() <= files + 2:
            break
        call("GET", f"{gateway.url}/v2/health/live")
    assert use.files() <= files + 2
    assert use.threads() <= threads + 4
    assert use.memory() <= memory + (64 << 20)


def test_a_live_gateway_answers_every_body_and_never_with_500(gateway, nothing_kept):
    port = gateway.site.config.gateway.port

    @LIVE
    @given(bodies())
    def ask(made):
        body, length = made
        fields = [b"Connection: close\r\n"]
        if length is not None:
            fields.append(b"Inference-Header-Content-Length: %d\r\n" % length)
        statuses, received = exchange(port, request(gateway, body, *fields))
        assert len(statuses) == 1
        assert statuses[0] in (200, 400, 404), received

    ask()


def test_split_pipelined_and_broken_off_requests_leave_nothing_behind(gateway, nothing_kept):
    port = gateway.site.config.gateway.port
    whole = request(gateway, json.dumps(ROW).encode())

    @LIVE
    @given(
        count=st.integers(1, 5),
        cuts=st.lists(st.integers(0, 5 * len(whole)), max_size=5).map(sorted),
        end=st.integers(0, 5 * len(whole)) | st.none(),
        goodbye=st.sampled_from(["close", "half", "reset"]),
    )
    def ask(count, cuts, end, goodbye):
        data = (whole * count)[: len(whole) * count if end is None else end]
        with connect(port) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = 0
            for cut in [*(cut for cut in cuts if cut < len(data)), len(data)]:
                connection.sendall(data[start:cut])
                start = max(start, cut)
            if goodbye == "half":
                connection.shutdown(socket.SHUT_WR)
                received = b"".join(iter(lambda: connection.recv(65536), b""))
                assert {int(status) for status in STATUS.findall(received)} <= {200}
            elif goodbye == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    ask()


def test_any_bytes_at_all_are_answered_or_hung_up_on(gateway, nothing_kept):
    port = gateway.site.config.gateway.port
    pieces = st.sampled_from(
        [b"GET ", b"POST ", b"/v2", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"Host: x", b"\0", b": ",
         b"\xff", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Upgrade: websocket",
         b"Connection: Upgrade", b"5\r\n", b"0\r\n\r\n", b"Expect: 100-continue"]
    )  # fmt: skip

    @LIVE
    @given(st.lists(pieces | st.binary(max_size=8), max_size=20).map(b"".join))
    def ask(data):
        with connect(port) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                received = b"".join(iter(lambda: connection.recv(65536), b""))
            assert b" 500 " not in received.split(b"\r\n", 1)[0]

    ask()
