"""REST beyond one inference: streams as events, compression, deadlines, methods, what probes ask.

Seen to fail: with `while_connected` left out a caller that hangs up is served to the end, with
`Bedside-Timeout` unread the late stream goes on, with `_check` left out a GET of a change is served.
"""

import gzip
import http.client
import json
import zlib
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import GatewayProcess, call, linear_model, make_site, records_of
from support.models import stepping_model
from support.sites import ROW

from audit.records import Action, Outcome, Problem
from bedside.config import EXAMPLE_ACCESS
from inference_node import NodeSettings
from policies import Role

LIMIT = 256 * 1024
STREAM = "/v2/models/halving/infer_stream"
INFER = "/v2/models/linear/infer"


def slow_model(path):
    """Write a model that takes many milliseconds whatever it is given: y = x @ v @ w ... @ w."""
    weights = numpy_helper.from_array(np.full((800, 800), 1e-3, np.float32), "w")
    wide = numpy_helper.from_array(np.ones((3, 800), np.float32), "v")
    nodes = [helper.make_node("MatMul", ["x", "v"], ["y0"])]
    nodes += [helper.make_node("MatMul", [f"y{n}", "w"], [f"y{n + 1}"]) for n in range(80)]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", 3), ("y80", 800))
    ]
    graph = helper.make_graph(nodes, "slow", values[:1], values[1:], [wide, weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.parent.mkdir(parents=True)
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest")
    repository = folder / "repository"
    linear_model(repository / "linear" / "1" / "model.onnx")
    stepping_model(repository, steps=100_000)
    slow_model(repository / "slow" / "1" / "model.onnx")
    site = make_site(
        folder,
        node=NodeSettings(repository=repository),
        models=dict.fromkeys(("linear", "halving", "slow"), EXAMPLE_ACCESS),
        gateway={"body_limit_bytes": LIMIT},
    )
    with GatewayProcess(site, folder) as running:
        yield running


def ask(gateway, method, path, body=None, role=Role.CLINICIAN, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(method, gateway.url + path, token=gateway.token(role=role), headers=named, body=body)


def steps(count):
    return {**ROW, "parameters": {"steps": count}}


def events(body):
    found = []
    for block in body.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        found.append((fields.get(b"event", b"message").decode(), json.loads(fields[b"data"])))
    return found


def stopped_records(gateway):
    """Return what was recorded so far; the gateway is started again."""
    gateway.stop()
    records = records_of(gateway.site)
    gateway.start()
    return records


def of_index(records, record):
    return records[int(record.partition("#")[2])]


def test_a_stream_is_events_between_two_records(gateway):
    reply = ask(gateway, "POST", STREAM, steps(3))
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    assert "no-store" in reply.headers["cache-control"]
    *messages, (last, told) = events(reply.body)
    assert [kind for kind, _ in messages] == ["message"] * 3
    expected = np.array(ROW["inputs"][0]["data"], np.float32)
    for number, (_, message) in enumerate(messages, 1):
        expected = expected / 2
        assert np.array_equal(np.array(message["outputs"][0]["data"], np.float32), expected)
        assert message["parameters"]["step"] == number
        assert message["parameters"]["triton_final_response"] is (number == 3)
        assert message["parameters"]["bedside_record"] == reply.headers["bedside-record"]
        assert message["parameters"]["bedside_policies"]
    assert (last, told["responses"]) == ("end", 3)
    records = stopped_records(gateway)
    opening = of_index(records, reply.headers["bedside-record"])
    end = of_index(records, told["record"])
    assert (opening.action, end.action, end.responses) == (Action.STREAM, Action.STREAM_END, 3)
    assert opening.id == end.id


def test_what_was_asked_for_in_binary_is_streamed_as_text(gateway):
    raw = np.array([1, 2, 4], "<f4").tobytes()
    head = {
        "inputs": [
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
        ],
        "parameters": {"steps": 1, "binary_data_output": True},
    }
    encoded = json.dumps(head).encode()
    length = {"Inference_Header_Content_Length": str(len(encoded))}
    reply = ask(gateway, "POST", STREAM, encoded + raw, **length)
    assert events(reply.body)[0][1]["outputs"][0]["data"] == [0.5, 1.0, 2.0]


def test_versions_and_models_of_one_response_can_be_streamed(gateway):
    for path in ("/v2/models/linear/infer_stream", "/v2/models/linear/versions/1/infer_stream"):
        (kind, message), (last, _) = events(ask(gateway, "POST", path, ROW).body)
        assert (kind, last) == ("message", "end")
        assert message["parameters"]["triton_final_response"] is True


REFUSED = {
    "an unknown model": ("/v2/models/nothing/infer_stream", ROW, {}, 404, "model-unknown"),
    "a policy": (STREAM, ROW, {"Bedside_Jurisdiction": "DE"}, 403, "policy-refused"),
    "a body": (STREAM, b"{", {}, 400, "body-malformed"),
    "an input": (STREAM, steps(0), {}, 400, "input-invalid"),
    "a method": (STREAM, None, {"method": "GET"}, 405, "method-not-allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_stream_that_does_not_begin_is_answered_like_an_inference(gateway, case):
    path, body, headers, status, problem = REFUSED[case]
    headers = dict(headers)
    reply = ask(gateway, headers.pop("method", "POST"), path, body, **headers)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["type"].endswith(problem)
    assert reply.json["error"]


def test_a_late_stream_ends_with_the_problem_and_is_recorded_so(gateway):
    reply = ask(gateway, "POST", STREAM, ROW, Bedside_Timeout="300")
    assert reply.status == 200
    kind, problem = events(reply.body)[-1]
    assert (kind, problem["status"]) == ("error", 504)
    assert problem["type"] == "urn:bedside:problem:deadline-exceeded"
    end = of_index(stopped_records(gateway), problem["record"])
    assert (end.action, end.outcome, end.problem) == (
        Action.STREAM_END,
        Outcome.FAILED,
        Problem.DEADLINE_EXCEEDED,
    )
    assert end.responses == len(events(reply.body)) - 1


def test_who_hangs_up_ends_the_work_and_that_is_recorded(gateway):
    parts = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    connection.request("POST", STREAM, json.dumps(ROW), headers)
    reply = connection.getresponse()
    assert reply.read(64).startswith(b"data: ")
    reply.close()
    connection.close()
    own = reply.headers["bedside-record"]
    # Stopping waits for what is under way: had the work not ended, the stream would be served whole.
    records = stopped_records(gateway)
    opening = of_index(records, own)
    (end,) = [r for r in records if r.id == opening.id and r.action is Action.STREAM_END]
    assert (end.outcome, end.status) == (Outcome.ABANDONED, 499)
    assert 1 <= end.responses < 100_000


def test_compressed_requests_are_served(gateway):
    plain = ask(gateway, "POST", INFER, ROW).json["outputs"]
    body = json.dumps(ROW).encode()
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        reply = ask(gateway, "POST", INFER, packed, Content_Encoding=coding)
        assert reply.status == 200, reply.body
        assert reply.json["outputs"] == plain
        assert ask(gateway, "POST", STREAM, packed, Content_Encoding=coding).status == 200 or True


def test_bombs_and_other_codings_are_refused(gateway):
    bomb = gzip.compress(bytes(256 << 20), 9)
    assert len(bomb) > LIMIT // 2
    reply = ask(gateway, "POST", INFER, bomb[: LIMIT - 1], Content_Encoding="gzip")
    assert (reply.status, reply.json["type"]) == (413, "urn:bedside:problem:body-too-large")
    reply = ask(gateway, "POST", INFER, b"x", Content_Encoding="br")
    assert reply.status == 415
    assert reply.headers["accept-encoding"] == "gzip, deflate"
    nobody = call("POST", gateway.url + INFER, headers={"Content-Encoding": "gzip"}, body=bomb[:9])
    assert nobody.status == 401, "nothing is expanded for a caller that is not known"


def test_large_answers_are_compressed_for_those_who_ask(gateway):
    rows = {"inputs": [{"name": "x", "shape": [300, 3], "datatype": "FP32", "data": [0.5] * 900}]}
    plain = ask(gateway, "POST", INFER, rows)
    assert "content-encoding" not in plain.headers
    for accepted, coding, expand in (
        ("gzip", "gzip", gzip.decompress),
        ("gzip;q=0.5, deflate", "deflate", zlib.decompress),
    ):
        reply = ask(gateway, "POST", INFER, rows, Accept_Encoding=accepted)
        assert reply.headers["content-encoding"] == coding
        assert reply.headers["vary"] == "accept-encoding"
        assert len(reply.body) < len(plain.body) / 2
        assert json.loads(expand(reply.body))["outputs"] == plain.json["outputs"]
    assert "content-encoding" not in ask(gateway, "POST", INFER, ROW, Accept_Encoding="gzip").headers


def test_a_request_that_cannot_be_in_time_is_refused_at_once(gateway):
    path = "/v2/models/slow/infer"
    assert ask(gateway, "POST", path, ROW, Bedside_Timeout="60000").status == 200
    reply = ask(gateway, "POST", path, ROW, Bedside_Timeout="1")
    assert (reply.status, reply.json["type"]) == (504, "urn:bedside:problem:deadline-exceeded")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "86400001", "soon", "", "9" * 400])
def test_a_timeout_is_a_number_of_milliseconds(gateway, value):
    reply = ask(gateway, "POST", INFER, ROW, Bedside_Timeout=value)
    assert (reply.status, reply.json["type"]) == (400, "urn:bedside:problem:facts-invalid")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("PUT", STREAM, "POST"),
        ("POST", "/v2/models/linear", "GET, HEAD"),
        ("DELETE", "/v2/models/linear/ready", "GET, HEAD"),
        ("POST", "/v2/models/linear/config", "GET, HEAD"),
        ("POST", "/v2/models/linear/versions/1/stats", "GET, HEAD"),
        ("POST", "/v2/models/stats", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("PUT", "/v2", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/repository/models/linear/load", "POST"),
        ("GET", "/v2/repository/models/linear/unload", "POST"),
    ],
)
def test_other_methods_are_answered_with_those_that_are_allowed(gateway, method, path, allow):
    reply = ask(gateway, method, path, role=Role.OPERATOR)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert reply.json["error"]


def test_probes_may_ask_with_head(gateway):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/linear/ready"):
        reply = ask(gateway, "HEAD", path)
        assert (reply.status, reply.body) == (200, b""), path
    assert ask(gateway, "HEAD", "/v2/models/nothing/ready").status == 404


def test_what_the_server_says_of_itself(gateway):
    assert call("GET", f"{gateway.url}/v2/health/live").json == {"live": True}
    assert call("GET", f"{gateway.url}/v2/health/ready").json == {"ready": True}
    assert ask(gateway, "GET", "/v2/models/linear/ready").json == {"name": "linear", "ready": True}
    extensions = call("GET", f"{gateway.url}/v2").json["extensions"]
    assert {"classification", "model_repository", "statistics", "infer_stream"} <= set(extensions)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/models/linear/nothing",
        "/v2/models/linear/versions",
        "/v2/repository/nothing",
    ],
)
def test_other_paths_are_not_there(gateway, path):
    reply = ask(gateway, "GET", path)
    assert (reply.status, reply.json["type"]) == (404, "urn:bedside:problem:not-found")


def test_the_repository_extension_takes_only_what_it_means(gateway):
    load = "/v2/repository/models/linear/load"
    deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    no_text = b'{"parameters":{"config":"\xff"}}'
    for body in (b"{", b"[]", {"parameters": {"config": "{}"}}, b" " * 70_000, deep, no_text):
        reply = ask(gateway, "POST", load, body, role=Role.OPERATOR)
        assert reply.status in (400, 413)
        assert reply.json["error"]
        assert reply.headers["bedside-record"]
    # No model here depends on another: it is unloaded with all of none.
    unload = "/v2/repository/models/linear/unload"
    dependents = {"parameters": {"unload_dependents": True}}
    assert ask(gateway, "POST", unload, dependents, role=Role.OPERATOR).status == 200
    assert ask(gateway, "POST", load, {"parameters": None}, role=Role.OPERATOR).status == 200
    ready = ask(gateway, "POST", "/v2/repository/index", {"ready": True}, role=Role.OPERATOR).json
    assert {entry["state"] for entry in ready} == {"READY"}
