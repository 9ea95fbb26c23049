"""What a gateway believes of a node, and when it is certain that a node began nothing."""

import asyncio
import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_node import (
    DeadlineExceeded,
    ExecutionFailed,
    InferRequest,
    InferResponse,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    NodeClient,
    NodeFailed,
    NodeUnreachable,
    QueueFull,
    RequestedOutput,
    Tensor,
    TensorMetadata,
)
from inference_node import client as client_module
from inference_node import connection as connection_module
from inference_node.codec import decode_request, encode_response
from inference_node.foreign import checked, decode_from, decode_index, decode_metadata, encode_for

BINARY_SERVER = {"name": "s", "version": "1", "extensions": ["binary_tensor_data"]}
JSON_SERVER = {"name": "s", "version": "1", "extensions": []}
ANSWER = {
    "model_name": "m",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2.5]}],
}


def question(**changes):
    x = np.array([1.5], np.float32)
    inputs = [Tensor(name="x", datatype="FP32", shape=(1,), array=x)]
    return InferRequest(**{"inputs": inputs, **changes})


class Scripted:
    """A server that answers each path as it is told, byte for byte, and keeps what it was sent."""

    def __init__(self, **answers):
        self.answers = {"GET /v2": JSON_SERVER, **answers}
        self.requests = []
        self.connections = 0
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.hang_up()
        self._server.close()

    def hang_up(self):
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                what = first.rpartition(" ")[0]
                self.requests.append((what, headers, body))
                answer = self.answers.get(what, 404)
                if answer is None:
                    writer.close()
                    return
                writer.write(answer if isinstance(answer, bytes) else http(answer))
                await writer.drain()
        writer.close()


def http(answer, *headers):
    if isinstance(answer, int):
        answer = (answer, {})
    status, body = answer if isinstance(answer, tuple) else (200, answer)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


@contextlib.asynccontextmanager
async def talking(**answers):
    async with Scripted(**answers) as server:
        client = NodeClient(server.url)
        try:
            yield server, client
        finally:
            await client.close()


INFER = "POST /v2/models/m/infer"


async def ask(client, **changes):
    return await client.infer("m", None, question(**changes), timeout_s=10)


async def test_a_server_without_the_binary_extension_is_sent_json():
    async with talking(**{INFER: ANSWER}) as (server, client):
        answer = await ask(client, id="7", parameters={"binary_data_output": True, "k": 1})
        assert answer.outputs[0].array.tolist() == [2.5]
        assert answer.id == "7"
        _, headers, body = server.requests[-1]
    assert headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in headers
    assert json.loads(body) == {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}],
        "parameters": {"k": 1},
        "id": "7",
    }


async def test_a_server_with_the_binary_extension_is_sent_binary():
    async with talking(**{INFER: ANSWER, "GET /v2": BINARY_SERVER}) as (server, client):
        await ask(client)
        _, headers, body = server.requests[-1]
    length = int(headers["inference-header-content-length"])
    assert decode_request(body, header_length=length).inputs[0].array.tolist() == [1.5]


async def test_compression_is_never_asked_for_and_never_taken():
    compressed = http(ANSWER, "Content-Encoding: gzip")
    async with talking(**{INFER: compressed}) as (server, client):
        with pytest.raises(NodeFailed, match="compressed"):
            await ask(client)
    assert {headers["accept-encoding"] for _, headers, _ in server.requests} == {"identity"}


async def test_a_payload_is_not_sent_on_where_a_node_points_to():
    async with Scripted(**{INFER: ANSWER}) as other:
        away = http(307, f"Location: {other.url}/v2/models/m/infer")
        async with talking(**{INFER: away}) as (_, client):
            with pytest.raises(NodeFailed):
                await ask(client)
    assert other.requests == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InputInvalid),
        (401, NodeUnreachable),
        (403, NodeUnreachable),
        (404, ModelUnknown),
        (413, InputInvalid),
        (422, InputInvalid),
        (429, QueueFull),
        (500, ExecutionFailed),
        (502, NodeFailed),
        (503, ModelNotReady),
        (504, DeadlineExceeded),
    ],
)
async def test_what_each_status_means(status, error):
    async with talking(**{INFER: status}) as (_, client):
        with pytest.raises(error):
            await ask(client)


async def test_a_connection_that_ends_after_the_request_proves_nothing():
    async with talking(**{INFER: None}) as (server, client):
        with pytest.raises(NodeFailed):
            await ask(client)
        assert [what for what, _, _ in server.requests].count(INFER) == 1


async def test_a_connection_that_was_closed_while_idle_is_replaced():
    async with talking(**{INFER: ANSWER}) as (server, client):
        await ask(client)
        before = server.connections
        server.hang_up()
        await ask(client)
        assert server.connections == before + 1


@pytest.mark.parametrize("body", [{}, b"Internal Server Error", b"x" * 300_000])
async def test_a_connection_that_carried_an_internal_error_is_not_used_again(body):
    async with talking(**{INFER: http((500, body)), "GET /v2": BINARY_SERVER}) as (server, client):
        await client.server()
        for _ in range(3):
            before = server.connections
            with pytest.raises(ExecutionFailed):
                await ask(client)
            await client.server()
            assert server.connections == before + 1
    async with talking(**{INFER: 503}) as (server, client):
        for _ in range(3):
            with pytest.raises(ModelNotReady):
                await ask(client)
        assert server.connections == 1


async def test_a_connection_that_closes_before_the_first_byte_is_replaced_once(monkeypatch):
    written = connection_module._Body.write_with_length
    closing = []

    async def close_first(self, writer, content_length):
        if closing:
            closing.pop()
            writer.transport.abort()
        await written(self, writer, content_length)

    monkeypatch.setattr(connection_module._Body, "write_with_length", close_first)
    async with talking(**{INFER: ANSWER}) as (server, client):
        await client.server()
        closing[:] = [1]
        assert (await ask(client)).outputs
        closing[:] = [1, 1]
        with pytest.raises(NodeUnreachable):
            await ask(client)
        assert [what for what, _, _ in server.requests].count(INFER) == 1


async def test_a_node_that_does_not_answer_in_time():
    async with talking(**{INFER: b""}) as (_, client):
        with pytest.raises(DeadlineExceeded):
            await client.infer("m", None, question(), timeout_s=0.05)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_read_no_further_than_its_limit(monkeypatch, chunked):
    monkeypatch.setattr(client_module, "RESPONSE_LIMIT_BYTES", 1000)
    head = "HTTP/1.1 200 OK\r\n"
    if chunked:
        endless = (
            f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"258\r\n%b\r\n" % (b" " * 600) * 9
        )
    else:
        endless = f"{head}Content-Length: 1001\r\n\r\n".encode()
    async with talking(**{INFER: endless}) as (_, client):
        with pytest.raises(NodeFailed, match="larger than 1000"):
            await ask(client)


async def test_readiness_statistics_and_the_repository():
    answers = {
        "GET /v2/health/ready": {},
        "GET /v2/models/m/ready": {},
        "GET /v2/models/m/stats": {"model_stats": []},
        "GET /v2/models/n/stats": [],
        "POST /v2/repository/models/m/load": {},
        "POST /v2/repository/models/m/unload": {},
    }
    async with talking(**answers) as (_, client):
        assert await client.ready()
        assert await client.model_ready("m", None)
        assert not await client.model_ready("m", "3")
        assert await client.statistics("m", None) == []
        with pytest.raises(NodeFailed):
            await client.statistics("n", None)
        await client.load("m")
        await client.unload("m")
        with pytest.raises(ModelUnknown):
            await client.load("../../v2")


async def test_models_are_found_without_a_repository_index():
    listed = {"GET /v2/models": {"models": ["m", "n"]}, "GET /v2/models/m/ready": {}}
    async with talking(**listed) as (server, client):
        assert [(e.name, e.state) for e in await client.index()] == [
            ("m", "READY"), ("n", "UNAVAILABLE")]  # fmt: skip
        configured = NodeClient(server.url, models=("m",))
        assert [(e.name, e.state) for e in await configured.index()] == [("m", "READY")]
        await configured.close()


async def test_an_index_without_states_is_completed_by_asking():
    index = {"POST /v2/repository/index": [{"name": "m"}, {"name": "n"}], "GET /v2/models/n/ready": {}}
    async with talking(**index) as (_, client):
        assert {e.name: e.state for e in await client.index()} == {"m": "UNAVAILABLE", "n": "READY"}


def test_of_an_index_only_what_can_be_asked_for_is_kept():
    entries = [
        {"name": "m", "version": 3, "state": "Ready", "digest": "no digest"},
        {"name": "../m", "state": "READY"},
        {"name": "a b", "state": "READY"},
        {"name": "v", "version": "1/2", "state": "READY"},
    ]
    (kept,) = decode_index(json.dumps(entries).encode())
    assert (kept.name, kept.version, kept.state, kept.digest) == ("m", "3", "READY", "")


def test_metadata_may_be_short_and_must_be_the_models_own():
    assert decode_metadata(b'{"name": "m"}', "m").inputs == ()
    for wrong in (
        b'{"name": "n"}',
        b"[]",
        b'{"name": "m", "inputs": [{"name": "x", "datatype": "F"}]}',
    ):
        with pytest.raises(NodeFailed):
            decode_metadata(wrong, "m")


def answered(**changes):
    y = np.array([1], np.float32)
    output = Tensor(name="y", datatype="FP32", shape=(1,), array=y)
    more = Tensor(name="z", datatype="FP32", shape=(1,), array=y)
    fields = {"model_name": "m", "model_version": "", "outputs": [output, more], "id": "made up"}
    return InferResponse(**{**fields, **changes})


DECLARED = (TensorMetadata(name="y", datatype="FP32", shape=(-1,)),)


def test_only_what_was_asked_for_goes_on():
    sent = {"bedside_placement": "device:x", "threshold": 0.5, "nested": {}, "long": "x" * 2000}
    response = checked(answered(parameters=sent), question(), name="m", version=None, outputs=DECLARED)
    assert [output.name for output in response.outputs] == ["y"]
    assert response.parameters == {"threshold": 0.5}
    assert response.id is None
    everything = checked(answered(), question(), name="m", version=None)
    assert [output.name for output in everything.outputs] == ["y", "z"]


@pytest.mark.parametrize(
    "asked",
    [
        RequestedOutput(name="w"),
        RequestedOutput(name="y", parameters={"classification": 1}),
    ],
)
def test_what_a_caller_asked_for_in_vain_is_not_held_against_the_node(asked):
    with pytest.raises(InputInvalid):
        checked(answered(), question(outputs=[asked]), name="m", version=None, outputs=DECLARED)


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ({"model_name": "n"}, {}),
        ({"model_version": "2"}, {}),
        ({"outputs": []}, {}),
        ({"outputs": [Tensor(name="y", datatype="FP32", shape=(1,), array=None)]}, {}),
        ({"outputs": [Tensor(name="y", datatype="INT8", shape=(1,), array=np.ones(1, np.int8))]}, {}),
    ],
)
def test_answers_that_are_not_believed(answer, asked):
    with pytest.raises(NodeFailed):
        checked(answered(**answer), question(**asked), name="m", version="1", outputs=DECLARED)


def test_classes_are_text_whatever_the_model_declares():
    classes = np.array([b"0.9:1:yes"], object)
    answer = answered(outputs=[Tensor(name="y", datatype="BYTES", shape=(1,), array=classes)])
    wanted = [RequestedOutput(name="y", parameters={"classification": 1})]
    request = question(outputs=wanted)
    assert checked(answer, request, name="m", version=None, outputs=DECLARED).outputs


def test_null_stands_for_a_number_that_json_cannot_say():
    answer = {**ANSWER, "outputs": [{**ANSWER["outputs"][0], "shape": [2, 1], "data": [[1.5], [None]]}]}
    array = decode_from(json.dumps(answer).encode(), None).outputs[0].array
    assert array[0, 0] == 1.5
    assert math.isnan(array[1, 0])


def test_inputs_that_json_cannot_say_are_the_callers_to_change():
    for datatype, array in (("FP32", [math.inf]), ("BYTES", [b"\xff"])):
        kind = object if datatype == "BYTES" else np.float32
        given_tensor = Tensor(name="x", datatype=datatype, shape=(1,), array=np.array(array, kind))
        with pytest.raises(InputInvalid, match="JSON only"):
            encode_for(InferRequest(inputs=[given_tensor]), binary=False)


async def test_a_raw_request_goes_as_it_came_to_who_takes_binary_and_to_nobody_else():
    raw = InferRequest(inputs=[], raw=b"abcd", binary_output=True)
    async with talking(**{INFER: ANSWER, "GET /v2": BINARY_SERVER}) as (server, client):
        assert (await client.infer("m", None, raw, timeout_s=10)).outputs
        _, headers, body = server.requests[-1]
    assert (headers["inference-header-content-length"], body) == ("0", b"abcd")
    async with talking(**{INFER: ANSWER}) as (server, client):
        with pytest.raises(InputInvalid, match="JSON only"):
            await client.infer("m", None, raw, timeout_s=10)
        assert INFER not in [what for what, _, _ in server.requests]


def believed(body, header):
    try:
        response = decode_from(body, header)
        checked(response, question(), name="m", version=None, outputs=DECLARED)
    except NodeFailed:
        return
    # What is believed can be answered with: it is a well-formed response.
    encode_response(InferResponse(model_name="m", model_version="", outputs=response.outputs), None)


HEADERS = st.none() | st.text(max_size=8) | st.integers(-5, 300).map(str)


@given(st.binary(max_size=300), HEADERS)
def test_any_bytes_are_an_answer_or_a_failure(body, header):
    believed(body, header)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["y", "z"]),
            "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "INT8", "BF16", "FP16", "?"]),
            "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3),
        },
        optional={
            "data": JSON,
            "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "p"]), JSON, max_size=2),
        },
    ),
    max_size=3,
)


@given(OUTPUTS, st.binary(max_size=20), st.booleans(), st.integers(-2, 2))
def test_an_answer_that_is_nearly_one_is_an_answer_or_a_failure(outputs, tail, binary, shift):
    head = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    believed(head + (tail if binary else b""), str(len(head) + shift) if binary else None)


async def test_cookies_of_a_node_are_not_kept():
    async with talking(**{INFER: http(ANSWER, "Set-Cookie: a=b")}) as (server, client):
        await ask(client)
        await ask(client)
    assert not any("cookie" in headers for _, headers, _ in server.requests)
