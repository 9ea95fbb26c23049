"""Anything at all, sent to a live gateway over gRPC: never a defect's status, never silence."""

import socket
from contextlib import suppress

import pytest
from grpc import RpcError, StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st
from support import GatewayProcess, make_site, publish_linear
from support.grpc import Caller, ModelInferRequest, row
from support.http2 import DATA, HEADERS, PREFACE, SETTINGS, exchange, frame, headers_of
from support.sites import free_port

from audit.verify import verify_log
from inference_node.oip import DTYPES
from inference_node.schema import SERVICE, method_names

DEFECTS = {StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED}
FIELDS = [
    "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    site = make_site(folder, gateway={"grpc_port": free_port(), "body_limit_bytes": 1 << 20})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as running:
        yield running
        text = running.log.read_text()
        assert "unforeseen" not in text
        assert "Traceback" not in text
        running.stop()
        verify_log(site.log_folder("gateway-1"), site.log_verifier("gateway-1"))


@pytest.fixture(scope="module")
def caller(gateway):
    with Caller(gateway.grpc_address, gateway.token()) as made:
        yield made


@st.composite
def messages(draw):
    message = ModelInferRequest(
        model_name=draw(st.sampled_from(["breast-cancer", "breast-cancer", "", "x"])),
        model_version=draw(st.sampled_from(["", "1", "9", "one"])),
        id=draw(st.text(max_size=4)),
    )
    for _ in range(draw(st.integers(0, 3))):
        tensor = message.inputs.add(
            name=draw(st.sampled_from(["x", "y", ""])),
            datatype=draw(st.sampled_from([*DTYPES, "FP32", "FP8", ""])),
            shape=draw(
                st.lists(st.sampled_from([0, 1, 3, -1, 2**31, 2**62, 2**63 - 1, -(2**63)]), max_size=5)
            ),
        )
        if draw(st.booleans()):
            name = draw(st.sampled_from(FIELDS))
            values = [b"\xff"] if name == "bytes_contents" else [True]
            getattr(tensor.contents, name).extend(values * draw(st.integers(0, 4)))
    for _ in range(draw(st.integers(0, 3))):
        message.raw_input_contents.append(draw(st.binary(max_size=16)))
    for _ in range(draw(st.integers(0, 2))):
        message.outputs.add(name=draw(st.sampled_from(["y", "z"])))
    for name in draw(st.lists(st.sampled_from(["priority", "timeout", "steps", "a"]), max_size=2)):
        value = draw(
            st.sampled_from(
                [
                    {"int64_param": -1}, {"uint64_param": 2**64 - 1}, {"bool_param": True},
                    {"string_param": "x"}, {"double_param": float("nan")}, {},
                ]
            )
        )  # fmt: skip
        message.parameters[name].SetInParent()
        for field, content in value.items():
            setattr(message.parameters[name], field, content)
    return message.SerializeToString()


@st.composite
def mutated(draw):
    body = bytearray(row().SerializeToString())
    for _ in range(draw(st.integers(1, 5))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


anything = st.one_of(messages(), mutated(), st.binary(max_size=64))


@settings(max_examples=250)
@given(body=anything, method=st.sampled_from(["ModelInfer"] * 8 + list(method_names())))
def test_any_message_to_any_method(caller, body, method):
    answer = caller.call(method, body)
    assert answer.code not in DEFECTS, answer.details


@settings(max_examples=60)
@given(bodies=st.lists(anything, max_size=4))
def test_any_messages_on_a_stream(caller, bodies):
    answers = caller.stream(bodies)
    assert len(answers) == len(bodies)
    assert not [a for a in answers if "The gateway failed" in a.error_message]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["bedside-subject", "bedside-purpose", "bedside-consent", "authorization", "x", "y-bin"]
            ),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        ),
        max_size=4,
    )
)
def test_any_metadata(caller, metadata):
    pairs = [(name, value.encode() if name.endswith("-bin") else value) for name, value in metadata]
    try:
        answer = caller.infer(metadata=pairs)
    except RpcError as error:
        pytest.fail(str(error.code()))
    assert answer.code not in DEFECTS, answer.details


@settings(max_examples=60)
@given(data=st.data())
def test_any_bytes_on_the_wire(gateway, caller, data):
    path = f"/{SERVICE}/ModelInfer".encode()
    value = data.draw(st.binary(max_size=40))
    name = data.draw(st.sampled_from([b"bedside-subject", b"grpc-timeout", b"grpc-encoding", b"x-bin"]))
    frames = PREFACE + b"".join(
        frame(kind, data.draw(st.integers(0, 255)), data.draw(st.integers(0, 3)), part)
        for kind, part in data.draw(
            st.lists(
                st.tuples(st.sampled_from([DATA, HEADERS, SETTINGS, 2, 3, 9]), st.binary(max_size=30)),
                max_size=4,
            )
        )
    )
    with suppress(OSError):
        exchange(gateway.grpc_address, headers_of(path, (name, value)), value)
    host, _, port = gateway.grpc_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(frames)
    assert caller.infer().code is StatusCode.OK
