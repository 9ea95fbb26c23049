"""Quantiles and intervals through a live gateway, of an embedded node and of one behind it."""

import json
import queue
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from scipy import stats
from support import GatewayProcess, call, make_site
from support.caching import MODEL, cache, question
from support.models import identity_model
from support.nodes import NodeProcess
from support.sites import free_port
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from bedside.demo.canaries import Canaries, written_files
from inference_node import NodeSettings, RequestedOutput
from secure_gateway import NodeEntry

HOW_TO = Path(__file__).parents[2] / "docs/how-to/probabilistic-outputs.md"
NORMAL = stats.norm(110, 12)
ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [110, 12]}]}


@pytest.fixture(scope="module", params=["embedded", "remote"])
def gateway(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    repository = folder / "models"
    identity_model(repository / "breast-cancer/1/model.onnx", y=2)
    (declaration,) = re.findall(r"```protobuf\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    (repository / "breast-cancer/config.pbtxt").write_text(declaration)
    node = NodeSettings(repository=repository)
    with ExitStack() as stack:
        if request.param == "remote":
            beside = stack.enter_context(NodeProcess(make_site(folder, node=node), folder, "us-1"))
            entry = NodeEntry(id="us-1", jurisdiction="US-CA", url=beside.url)
            nodes = (entry,)
        else:
            nodes = ()
        site = make_site(folder, node=node, gateway={"nodes": nodes, "grpc_port": free_port()})
        yield stack.enter_context(GatewayProcess(site, folder))


def ask(gateway, body):
    return call("POST", gateway.infer_url, token=gateway.token(), body={**ROW, **body})


def test_the_how_to_works_as_it_is_written(gateway, tmp_path):
    text = HOW_TO.read_text()
    commands = re.findall(r"^\$ (.*?)(?=^\$ |\Z)", "\n".join(_blocks(text)), re.MULTILINE | re.DOTALL)
    assert len(commands) == 5
    script = "\n".join([f"export TOKEN={gateway.token()}", *commands])
    done = subprocess.run(
        ["bash", "-euc", script.replace("http://127.0.0.1:8080", gateway.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in re.findall(r"<!-- prints: (.*?) -->", text):
        assert expected in done.stdout, (expected, done.stdout)


def _blocks(text):
    return re.findall(r"```console\n(.*?)```", text, re.DOTALL)


def test_a_client_of_the_protocol_asks_in_binary_and_gets_the_exact_numbers(gateway):
    client = InferenceServerClient(gateway.url.removeprefix("http://"))
    x = InferInput("x", [2, 2], "FP32").set_data_from_numpy(np.array([[110, 12]] * 2, np.float32))
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    parameters = {"quantiles": "0.05,0.95", "intervals": "0.5", "moments": "mean"}
    for outputs in (None, [InferRequestedOutput("y"), InferRequestedOutput("glucose.intervals")]):
        answer = client.infer(
            "breast-cancer", [x], headers=headers, parameters=parameters, outputs=outputs
        )
        np.testing.assert_array_equal(answer.as_numpy("y"), [[110, 12]] * 2)
        found = answer.as_numpy("glucose.quantiles")
        np.testing.assert_allclose(found, [NORMAL.ppf([0.05, 0.95])] * 2, rtol=1e-12)
        found = answer.as_numpy("glucose.intervals")
        np.testing.assert_allclose(found, [[NORMAL.interval(0.5)]] * 2, rtol=1e-12)
        np.testing.assert_array_equal(answer.as_numpy("glucose.mean"), [110, 110])
    plain = client.infer("breast-cancer", [x], headers=headers)
    assert [output["name"] for output in plain.get_response()["outputs"]] == ["y"]
    with pytest.raises(InferenceServerException, match="quantiles"):
        client.infer("breast-cancer", [x], headers=headers, parameters={"quantiles": "2"})
    client.close()


def test_a_grpc_client_asks_in_the_same_words(gateway):
    client = grpcclient.InferenceServerClient(gateway.grpc_address)
    x = grpcclient.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[110, 12]], np.float32))
    headers = {"authorization": f"Bearer {gateway.token()}"}
    parameters = {"quantiles": "0.05,0.95", "moments": "variance"}
    answer = client.infer("breast-cancer", [x], headers=headers, parameters=parameters)
    found = answer.as_numpy("glucose.quantiles")
    np.testing.assert_allclose(found, [NORMAL.ppf([0.05, 0.95])], rtol=1e-12)
    np.testing.assert_array_equal(answer.as_numpy("glucose.variance"), [144])
    with pytest.raises(InferenceServerException, match="quantiles"):
        client.infer("breast-cancer", [x], headers=headers, parameters={"quantiles": "2"})
    client.close()


def test_a_stream_has_them_with_each_response(gateway):
    answers = queue.SimpleQueue()
    client = grpcclient.InferenceServerClient(gateway.grpc_address)
    x = grpcclient.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[110, 12]], np.float32))
    headers = {"authorization": f"Bearer {gateway.token()}"}
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    client.async_stream_infer("breast-cancer", [x], parameters={"quantiles": "0.5"})
    result, error = answers.get(timeout=20)
    client.stop_stream()
    client.close()
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), [[110, 12]])
    np.testing.assert_array_equal(result.as_numpy("glucose.quantiles"), [[110]])


@pytest.mark.parametrize(
    "body",
    [
        {"parameters": {"quantiles": "secret-0.5"}},
        {"parameters": {"intervals": "1.5"}},
        {"parameters": {"moments": ["mean"]}},
        {"outputs": [{"name": "glucose.quantiles"}]},
        {"outputs": [{"name": "y", "parameters": {"quantiles": 3}}]},
    ],
    ids=json.dumps,
)
def test_what_is_asked_for_wrongly_is_the_callers_fault_and_is_not_repeated(gateway, body):
    reply = ask(gateway, body)
    assert reply.status == 400, reply.body
    assert b"secret" not in reply.body
    assert reply.json["error"]


def test_rows_whose_parameters_are_none_are_null(gateway):
    row = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [110, 12, 110, 0]}
    reply = ask(gateway, {"inputs": [row], "parameters": {"quantiles": "0.5"}})
    assert reply.json["outputs"][1]["data"] == [110, None]


def test_answers_to_other_levels_are_other_answers_to_the_cache():
    def key(request):
        return cache().key("dr.adams", MODEL, request)

    questions = [
        question(),
        *(question(parameters={"quantiles": levels}) for levels in ("0.5", "0.05,0.95")),
        question(parameters={"intervals": "0.5"}),
        question(outputs=[RequestedOutput(name="y", parameters={"quantiles": "0.5"})]),
        question(outputs=[RequestedOutput(name="y")]),
    ]
    assert len({key(one) for one in questions}) == len(questions)


def test_nothing_that_was_computed_is_written_anywhere(tmp_path):
    site = make_site(tmp_path, node=NodeSettings(repository=tmp_path / "models"))
    identity_model(tmp_path / "models/breast-cancer/1/model.onnx", y=2)
    (tmp_path / "models/breast-cancer/config.pbtxt").write_text(
        'parameters { key: "distribution.y" value { string_value: "normal loc=y[0] scale=y[1]" } }'
    )
    canaries = Canaries()
    wrong = "canary-0.123456"
    canaries.add_text(wrong)
    with GatewayProcess(site, tmp_path) as gateway:
        reply = ask(gateway, {"parameters": {"quantiles": "0.1234567", "intervals": "0.7654321"}})
        assert reply.status == 200
        for output in reply.json["outputs"][1:]:
            canaries.add_values(np.array(output["data"]))
        for name in ("quantiles", "intervals", "moments"):
            reply = ask(gateway, {"parameters": {name: wrong}})
            assert reply.status == 400
            assert not list(canaries.matches(reply.body))
            named = {"name": wrong, "parameters": {name: "0.5"}}
            reply = ask(gateway, {"outputs": [named]})
            assert reply.status == 400
            assert not list(canaries.matches(reply.body))
    assert canaries.count > 10
    assert list(canaries.search(written_files(tmp_path))) == []
