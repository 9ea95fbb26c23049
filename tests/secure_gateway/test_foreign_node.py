"""Other people's servers as nodes: a real MLServer, with JSON tensors only and hardly any versions."""

import json

import numpy as np
import pytest
import tritonclient.http as triton
from conformance.foreign import MLServer
from support import GatewayProcess, call, make_site, records_of

from audit.records import Outcome
from bedside.config import EXAMPLE_ACCESS

MODELS = ("echo", "failing", "softmax", "versioned")
OPEN = dict.fromkeys(MODELS, EXAMPLE_ACCESS)


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory):
    with MLServer(tmp_path_factory.mktemp("mlserver")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, mlserver):
    folder = tmp_path_factory.mktemp("gateway")
    node = {"id": "mlserver", "jurisdiction": "US", "url": mlserver.url}
    with GatewayProcess(make_site(folder, gateway={"nodes": [node]}, models=OPEN), folder) as running:
        yield running


def infer(gateway, model, body, **headers):
    url = f"{gateway.url}/v2/models/{model}/infer"
    return call("POST", url, token=gateway.token(), body=body, headers=headers)


def tensor(datatype, shape, data, name="x"):
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}


ROW = tensor("FP32", [1, 3], [0.1, 0.2, 0.3])


def expected(row):
    z = np.exp(np.asarray(row, np.float32) @ np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float32))
    return z / z.sum()


def test_its_models_are_found_and_described(gateway):
    def get(path):
        return call("GET", f"{gateway.url}/v2/models/{path}", token=gateway.token())

    assert all(get(f"{model}/ready").status == 200 for model in MODELS)
    assert get("softmax").json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert get("softmax").json["name"] == "softmax"
    assert get("versioned/versions/v2/ready").status == 200
    assert get("softmax/versions/1").status == 404
    assert get("nothing").status == 404


def test_it_answers_json_and_says_where_it_ran(gateway):
    reply = infer(gateway, "softmax", ROW | {"id": "mine"})
    assert reply.status == 200
    assert reply.json["id"] == "mine"
    assert [output["name"] for output in reply.json["outputs"]] == ["y"]
    np.testing.assert_allclose(reply.json["outputs"][0]["data"], expected([0.1, 0.2, 0.3]), rtol=1e-5)
    assert reply.json["parameters"]["bedside_placement"] == "node:mlserver"


def test_an_answer_has_no_identifier_where_the_request_had_none(gateway):
    assert "id" not in infer(gateway, "softmax", ROW).json


def test_binary_callers_are_served_by_a_node_that_takes_json_only(gateway):
    x = np.array([[0.1, 0.2, 0.3]], np.float32)
    given = triton.InferInput("x", x.shape, "FP32")
    given.set_data_from_numpy(x, binary_data=True)
    wanted = triton.InferRequestedOutput("y", binary_data=True)
    headers = {"Authorization": f"Bearer {gateway.token()}"}
    with triton.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        answer = client.infer("softmax", [given], outputs=[wanted], headers=headers)
    np.testing.assert_allclose(answer.as_numpy("y")[0], expected(x[0]), rtol=1e-5)
    assert "data" not in answer.get_output("y")


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("UINT8", [0, 255]),
        ("INT16", [-32768, 32767]),
        ("UINT16", [0, 65535]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [0.5, -2.0]),
        ("FP32", [0.5, -2.0]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", ["zwei", "drüben"]),
    ],
)
def test_every_datatype_that_it_has_comes_back_as_it_went(gateway, datatype, data):
    reply = infer(gateway, "echo", tensor(datatype, [2], data))
    assert reply.status == 200, reply.body
    assert reply.json["outputs"] == [{"name": "x", "datatype": datatype, "shape": [2], "data": data}]


def test_only_the_outputs_that_were_asked_for_go_on(gateway):
    both = infer(gateway, "softmax", ROW | {"outputs": [{"name": "x"}, {"name": "y"}]}).json["outputs"]
    assert [output["name"] for output in both] == ["x", "y"]
    missing = infer(gateway, "softmax", ROW | {"outputs": [{"name": "z"}]})
    assert missing.status >= 400
    assert "error" in missing.json


def test_a_request_that_does_not_fit_is_refused_before_it_is_sent(gateway):
    reply = infer(gateway, "softmax", tensor("FP32", [1, 4], [1, 2, 3, 4]))
    assert reply.status == 400
    assert "[any, 3]" in reply.json["error"]


def test_values_that_json_cannot_say_are_refused_for_it(gateway):
    not_a_number = np.array([np.nan], "<f4").tobytes()
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}
    head["inputs"][0]["parameters"] = {"binary_data_size": 4}
    encoded = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(encoded))}
    reply = infer(gateway, "echo", encoded + not_a_number, **length)
    assert reply.status == 400
    assert "JSON only" in reply.json["error"]


def test_its_own_words_never_reach_the_caller_or_the_log(gateway):
    secret = "4111.0625"
    reply = infer(gateway, "failing", tensor("FP32", [1], [float(secret)]))
    assert reply.status == 502
    assert secret.encode() not in reply.body
    assert secret not in gateway.log.read_text()


def test_a_request_behind_a_failed_one_is_served(gateway):
    # MLServer answers a model's exception and closes the connection a moment later.
    for _ in range(20):
        assert infer(gateway, "failing", tensor("FP32", [1], [1.5])).status == 502
        assert infer(gateway, "echo", tensor("FP32", [1], [1.5])).status == 200


def test_a_node_that_stops_and_comes_back_is_used_again(tmp_path, mlserver):
    folder = tmp_path / "mlserver"
    folder.mkdir()
    with MLServer(folder) as own:
        node = {"id": "mlserver", "jurisdiction": "US", "url": own.url}
        site = make_site(tmp_path, gateway={"nodes": [node]}, models=OPEN)
        with GatewayProcess(site, tmp_path) as gateway:
            assert infer(gateway, "softmax", ROW).status == 200
            own.stop()
            gone = infer(gateway, "softmax", ROW)
            assert gone.status == 503
            assert "retry-after" in gone.headers
            own.start()
            while (again := infer(gateway, "softmax", ROW)).status == 503:
                pass
            assert again.status == 200
            assert (
                call(
                    "POST", f"{gateway.url}/v2/models/versioned/infer", token=gateway.token(), body=ROW
                ).status
                == 200
            )
    served = [record for record in records_of(site) if record.outcome is Outcome.SERVED]
    assert [(record.model, record.model_version) for record in served] == [
        ("softmax", None),
        ("softmax", None),
        ("versioned", "v2"),
    ]
    assert {record.model_digest for record in served} == {None}
    assert {record.placement for record in served} == {"node:mlserver"}
