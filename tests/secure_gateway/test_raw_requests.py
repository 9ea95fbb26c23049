"""Raw binary requests (Triton's binary tensor data extension): the whole body is the one input's data.

Seen to fail: with a head of no bytes read as JSON, each was refused with 400; with the raw body left
out of the key, the cache answered one question with another's answer.
"""

import gzip
import json
from contextlib import ExitStack

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import GatewayProcess, call, linear_model, make_site, records_of
from support.caching import MODEL, cache, exchange, question
from support.models import stepping_model
from support.nodes import NodeProcess
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from audit.records import Action, Outcome
from bedside.config import EXAMPLE_ACCESS
from inference_node import InferRequest, InputInvalid, NodeSettings, TensorMetadata
from inference_node.codec import decode_request
from inference_node.raw import completed
from secure_gateway import NodeEntry
from secure_gateway.exchange import ModelInfo

RAW = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
X = np.array([[0.1, 0.2, 0.3]], np.float32)


def passing_model(path, kind, shape):
    """Write a model that gives its input x as its output y."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "passing",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.mkdir(parents=True)
    onnx.save(model, str(path / "model.onnx"))


def two_inputs(path):
    rows = ["rows", 1]
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, rows) for name in ("a", "b", "y")
    }
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "two", [values["a"], values["b"]], [values["y"]]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.mkdir(parents=True)
    onnx.save(model, str(path / "model.onnx"))


MODELS = ("linear", "series", "text", "words", "image", "two", "halving")


def repository(folder):
    linear_model(folder / "linear/1/model.onnx")
    passing_model(folder / "series/1", TensorProto.INT16, [2, "length"])
    passing_model(folder / "text/1", TensorProto.STRING, ["rows", 1])
    passing_model(folder / "words/1", TensorProto.STRING, ["rows", 2])
    passing_model(folder / "image/1", TensorProto.UINT8, ["rows", "height", "width"])
    two_inputs(folder / "two/1")
    stepping_model(folder, steps=2)
    return folder


@pytest.fixture(scope="module", params=["embedded", "remote"])
def gateway(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    settings = {
        "node": NodeSettings(repository=repository(folder / "models")),
        "models": dict.fromkeys(MODELS, EXAMPLE_ACCESS),
    }
    with ExitStack() as stack:
        gateway = {}
        if request.param == "remote":
            site = make_site(folder, **settings)
            node = stack.enter_context(NodeProcess(site, folder, "one"))
            gateway = {"nodes": [NodeEntry(id="one", jurisdiction="US-CA", url=node.url)]}
        site = make_site(folder, gateway=gateway, **settings)
        yield stack.enter_context(GatewayProcess(site, folder))


def post(gateway, model, body, path="infer", **headers):
    url = f"{gateway.url}/v2/models/{model}/{path}"
    return call("POST", url, token=gateway.token(), body=body, headers={**RAW, **headers})


def outputs(reply):
    assert reply.status == 200, reply.body
    length = int(reply.headers["inference-header-content-length"])
    head = json.loads(reply.body[:length])
    assert all("binary_data_size" in output["parameters"] for output in head["outputs"])
    return head["outputs"], reply.body[length:], head


def usual(gateway, model, array, datatype="FP32"):
    tensor = InferInput("x", array.shape, datatype)
    tensor.set_data_from_numpy(array, binary_data=True)
    asked = [InferRequestedOutput("y", binary_data=True)]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs=asked)
    headers = {"Inference-Header-Content-Length": str(length)}
    return outputs(post(gateway, model, body, **headers))


def test_the_body_is_the_row_of_a_model_that_batches(gateway):
    told, data, head = outputs(post(gateway, "linear", X.tobytes()))
    assert (told, data) == usual(gateway, "linear", X)[:2]
    assert told[0]["shape"] == [1, 2]
    assert {"bedside_record", "bedside_placement"} <= head["parameters"].keys()


def test_one_open_dimension_is_as_long_as_the_body(gateway):
    for length in (1, 5):
        series = np.arange(2 * length, dtype=np.int16).reshape(2, length)
        told, data, _ = outputs(post(gateway, "series", series.tobytes()))
        assert (told, data) == usual(gateway, "series", series, "INT16")[:2]
        assert told[0]["shape"] == [2, length]


def test_text_is_taken_whole_where_it_is_one_element(gateway):
    for text in ("drüben", ""):
        told, data, _ = outputs(post(gateway, "text", text.encode()))
        assert told[0]["shape"] == [1, 1]
        assert data == len(text.encode()).to_bytes(4, "little") + text.encode()


def test_it_may_be_compressed(gateway):
    compressed = post(gateway, "linear", gzip.compress(X.tobytes()), **{"Content-Encoding": "gzip"})
    assert outputs(compressed)[1] == usual(gateway, "linear", X)[1]


def test_a_stream_takes_it_and_answers_in_text(gateway):
    reply = post(gateway, "halving", X.tobytes(), "infer_stream")
    assert reply.status == 200
    assert reply.body.count(b'"data":[') == 2


REFUSED = {
    "too short": ("linear", X.tobytes()[:-1]),
    "too long": ("linear", X.tobytes() * 2),
    "empty": ("linear", b""),
    "no whole number of elements": ("series", b"abc"),
    "text of two elements": ("words", b"abc"),
    "two open dimensions": ("image", b"\0" * 12),
    "two inputs": ("two", b"\0" * 8),
    "text that is none": ("text", b"\xff"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_tell_the_tensor_is_refused(gateway, case):
    model, body = REFUSED[case]
    reply = post(gateway, model, body)
    assert reply.status == 400, reply.body
    assert reply.json["type"] == "urn:bedside:problem:input-invalid"


def test_records_count_one_row(tmp_path):
    site = make_site(
        tmp_path,
        node=NodeSettings(repository=repository(tmp_path / "models")),
        models=dict.fromkeys(MODELS, EXAMPLE_ACCESS),
        gateway={"cache": {"enabled": True}},
    )
    kept = {"Bedside-Data-Class": "synthetic"}
    with GatewayProcess(site, tmp_path) as gateway:
        first = outputs(post(gateway, "linear", X.tobytes(), **kept))
        again = outputs(post(gateway, "linear", X.tobytes(), **kept))
        other = outputs(post(gateway, "linear", (X * 2).tobytes(), **kept))
    assert "bedside_from_cache" in again[2]["parameters"]
    assert first[1] == again[1] != other[1]
    records = [record for record in records_of(site) if record.action is Action.INFER]
    assert [(record.outcome, record.rows) for record in records] == [(Outcome.SERVED, 1)] * 3


def key(request, model=MODEL):
    made = cache()
    asked = exchange(request)
    asked.model = model
    return made.question(asked)


def test_the_keys_of_raw_questions_are_their_own():
    raw = decode_request(X.tobytes(), header_length=0)
    keys = [
        key(raw),
        key(decode_request(X.tobytes() + b"\0", header_length=0)),
        key(decode_request(b"", header_length=0)),
        key(raw, ModelInfo("other", "1", MODEL.digest)),
        key(question()),
        key(InferRequest(inputs=[])),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key(raw) == key(decode_request(X.tobytes(), header_length=0))


def test_it_carries_data_and_so_is_nothing_for_a_device():
    raw = decode_request(b"", header_length=0)
    assert raw.carries_tensors
    assert raw.rows == 1


def test_large_questions_are_not_kept():
    made = cache(entry_limit_bytes=1024)
    assert made.question(exchange(decode_request(b"a" * 1025, header_length=0))) is None


@pytest.mark.parametrize(
    ("datatype", "shape", "batches", "size", "expected"),
    [
        ("FP32", (-1, 3), True, 12, (1, 3)),
        ("FP32", (-1, 3), False, 24, (2, 3)),
        ("UINT8", (-1, -1, 4), True, 8, (1, 2, 4)),
        ("BF16", (2, 2), False, 8, (2, 2)),
        ("BYTES", (-1, 1), True, 5, (1, 1)),
        ("BYTES", (-1,), True, 5, (1,)),
        ("BYTES", (1,), False, 5, (1,)),
        ("BYTES", (-1,), False, 5, None),
        ("BYTES", (-1, 2), True, 5, None),
        ("FP32", (-1, 3), False, 8, None),
        ("FP32", (-1, -1), False, 8, None),
        ("FP32", (-1, 0), False, 0, None),
        ("FP32", (2,), False, 4, None),
    ],
)
def test_the_shape_is_the_models(datatype, shape, batches, size, expected):
    inputs = [TensorMetadata(name="x", datatype=datatype, shape=shape)]
    request = InferRequest(inputs=[], raw=b"\0" * size, binary_output=True)
    if expected is None:
        with pytest.raises(InputInvalid):
            completed(request, inputs, batches=batches)
        return
    whole = completed(request, inputs, batches=batches)
    assert whole.raw is None
    assert whole.inputs[0].shape == whole.inputs[0].array.shape == expected
    assert request.raw is not None
