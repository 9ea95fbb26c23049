"""Triton's own HTTP clients against a live gateway: `tritonclient.http` and `tritonclient.http.aio`."""

import numpy as np
import pytest
import tritonclient.http as triton
from conformance.identity import ONNX_TYPES, VALUES, model_name
from tritonclient.utils import InferenceServerException

FP32 = model_name("FP32")


def given(name, datatype, array, *, binary=True):
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def wanted(name, **options):
    return triton.InferRequestedOutput(name, **options)


def texts(array):
    return [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]


def same(datatype, one, other):
    if datatype == "BYTES":
        return texts(one) == texts(other)
    return one.dtype == other.dtype and np.array_equal(one, other)


X = VALUES["FP32"]


def test_health_and_metadata(client, headers):
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "bedside"
    assert "binary_tensor_data" in server["extensions"]
    assert client.is_model_ready(FP32, headers=headers())
    assert client.is_model_ready(FP32, "1", headers=headers())
    assert not client.is_model_ready(FP32, "9", headers=headers())
    assert not client.is_model_ready("nothing", headers=headers())
    assert not client.is_model_ready(FP32)


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_model_metadata(client, headers, datatype):
    name = model_name(datatype)
    metadata = client.get_model_metadata(name, headers=headers())
    assert metadata["name"] == name
    assert metadata["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, 3]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": datatype, "shape": [-1, 3]}]
    assert client.get_model_metadata(name, "1", headers=headers())["versions"]


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary-out", "json-out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_comes_back_as_it_went(client, headers, datatype, binary_in, binary_out):
    if datatype == "BF16" and not binary_in:
        with pytest.raises(InferenceServerException, match="must be sent as binary"):
            given("x", datatype, VALUES[datatype], binary=False)
        return
    array = VALUES[datatype]
    answer = client.infer(
        model_name(datatype),
        [given("x", datatype, array, binary=binary_in)],
        model_version="1",
        outputs=[wanted("y", binary_data=binary_out)],
        headers=headers(),
    )
    assert same(datatype, answer.as_numpy("y"), array)
    assert ("data" in answer.get_output("y")) is not binary_out


def test_outputs_are_binary_where_the_request_says_nothing_of_them(client, headers):
    answer = client.infer(model_name("FP64"), [given("x", "FP64", VALUES["FP64"])], headers=headers())
    assert "data" not in answer.get_output("y")


def test_versions(client, headers):
    x = [given("x", "FP32", X)]
    for version, expected in (("1", X), ("2", -X), ("", -X)):
        answer = client.infer(FP32, x, model_version=version, headers=headers())
        assert np.array_equal(answer.as_numpy("y"), expected)
        assert answer.get_response()["model_version"] == (version or "2")


def test_several_inputs_and_outputs_mixed_encodings_and_selection(client, headers):
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    inputs = [given("a", "FP32", a, binary=True), given("b", "FP32", b, binary=False)]
    answer = client.infer("pair", inputs, headers=headers())
    assert np.array_equal(answer.as_numpy("sum"), a + b)
    assert np.array_equal(answer.as_numpy("rest"), a - b)
    mixed = [wanted("rest", binary_data=False), wanted("sum", binary_data=True)]
    answer = client.infer("pair", inputs, outputs=mixed, headers=headers())
    assert "data" in answer.get_output("rest")
    assert "data" not in answer.get_output("sum")
    assert np.array_equal(answer.as_numpy("rest"), a - b)
    assert np.array_equal(answer.as_numpy("sum"), a + b)
    answer = client.infer("pair", inputs, outputs=[wanted("sum")], headers=headers())
    assert answer.as_numpy("rest") is None


def test_identifiers_priority_timeout_and_parameters(client, headers):
    answer = client.infer(
        FP32,
        [given("x", "FP32", X)],
        request_id="req-7",
        priority=1,
        timeout=10_000_000,
        parameters={"tag": "a", "count": 3, "yes": True},
        headers=headers(),
    )
    assert answer.get_response()["id"] == "req-7"
    assert answer.get_response()["parameters"]["bedside_placement"] == "node:local"


@pytest.mark.parametrize(
    ("model", "version", "tensor", "asked", "status", "words"),
    [
        ("nothing", "", given("x", "FP32", X), None, "404", "No such model"),
        (FP32, "9", given("x", "FP32", X), None, "404", "No such model"),
        (FP32, "", given("z", "FP32", X), None, "400", "input x is missing"),
        (FP32, "", given("x", "FP64", VALUES["FP64"]), None, "400", "must be FP32"),
        (FP32, "", given("x", "FP32", X[:, :2]), None, "400", "must have the shape"),
        (FP32, "", given("x", "FP32", X), [wanted("z")], "400", "gives only"),
    ],
)
def test_errors_are_where_clients_look_for_them(
    client, headers, model, version, tensor, asked, status, words
):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor], model_version=version, outputs=asked, headers=headers())
    assert caught.value.status() == status
    assert words in caught.value.message()


def test_refusals_name_the_policy_and_the_record(client, headers):
    x = [given("x", "FP32", X)]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(FP32, x)
    assert caught.value.status() == "401"
    abroad = {**headers(), "Bedside-Jurisdiction": "DE", "Bedside-Data-Class": "phi"}
    with pytest.raises(InferenceServerException) as caught:
        client.infer(FP32, x, headers=abroad)
    assert caught.value.status() == "403"
    assert "gdpr-transfer" in caught.value.message()
    assert "[record clinic/gateway-1#" in caught.value.message()


def test_errors_of_reading_models(client, headers):
    for read in (
        client.get_model_metadata,
        client.get_model_config,
    ):
        with pytest.raises(InferenceServerException) as caught:
            read("nothing", headers=headers())
        assert caught.value.status() == "404"


def test_model_config(client, headers):
    config = client.get_model_config(model_name("INT8"), headers=headers())
    assert config["name"] == model_name("INT8")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_INT8", "dims": [3]}]
    assert client.get_model_config(FP32, "2", headers=headers())["name"] == FP32


def test_statistics(client, headers, operator):
    client.infer(model_name("INT16"), [given("x", "INT16", VALUES["INT16"])], headers=headers())
    one = client.get_inference_statistics(model_name("INT16"), "1", headers=operator())
    (counted,) = one["model_stats"]
    assert (counted["name"], counted["version"]) == (model_name("INT16"), "1")
    assert counted["inference_count"] >= 1
    assert counted["inference_stats"]["success"]["count"] >= 1
    of_name = client.get_inference_statistics(FP32, headers=operator())["model_stats"]
    assert [model["version"] for model in of_name] == ["1", "2"]
    everything = client.get_inference_statistics(headers=operator())["model_stats"]
    assert {model["name"] for model in everything} >= {model_name("INT16"), FP32, "pair"}
    with pytest.raises(InferenceServerException) as caught:
        client.get_inference_statistics(headers=headers())
    assert caught.value.status() == "403"


def test_the_repository_is_listed_and_models_unload_and_load(client, headers, operator):
    index = client.get_model_repository_index(headers=operator())
    found = {(entry["name"], entry["version"]): entry["state"] for entry in index}
    assert found[FP32, "1"] == found[FP32, "2"] == "READY"
    client.unload_model("spare", headers=operator())
    assert not client.is_model_ready("spare", headers=headers())
    with pytest.raises(InferenceServerException) as caught:
        client.infer("spare", [given("x", "FP32", X)], headers=headers())
    assert caught.value.status() == "404"
    client.load_model("spare", headers=operator())
    assert client.is_model_ready("spare", headers=headers())
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException) as caught:
            change("nothing", headers=operator())
        assert caught.value.status() == "404"
        with pytest.raises(InferenceServerException) as caught:
            change("spare", headers=headers())
        assert caught.value.status() == "403"
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("spare", config='{"max_batch_size": 1}', headers=operator())
    assert caught.value.status() == "400"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_both_ways(client, headers, coding):
    x = np.ones((400, 3), np.float32)
    answer = client.infer(
        FP32,
        [given("x", "FP32", x)],
        headers=headers(),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert np.array_equal(answer.as_numpy("y"), -x)


def test_classification(client, headers):
    asked = [wanted("y", class_count=2)]
    answer = client.infer(
        FP32, [given("x", "FP32", X)], model_version="1", outputs=asked, headers=headers()
    )
    assert texts(answer.as_numpy("y"))[1] == "1.250000:1"
    assert answer.get_output("y")["datatype"] == "BYTES"
    assert answer.as_numpy("y").shape == (1, 2)


def test_what_belongs_to_tritons_own_machine_is_refused_clearly(client, headers):
    asked = (
        lambda: client.get_system_shared_memory_status(headers=headers()),
        lambda: client.register_system_shared_memory("a", "/a", 8, headers=headers()),
        lambda: client.unregister_system_shared_memory(headers=headers()),
        lambda: client.get_cuda_shared_memory_status(headers=headers()),
        lambda: client.register_cuda_shared_memory("a", b"eA==", 0, 8, headers=headers()),
        lambda: client.unregister_cuda_shared_memory(headers=headers()),
        lambda: client.get_trace_settings(headers=headers()),
        lambda: client.get_trace_settings(FP32, headers=headers()),
        lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}, headers=headers()),
        lambda: client.get_log_settings(headers=headers()),
        lambda: client.update_log_settings({"log_info": True}, headers=headers()),
    )
    for ask in asked:
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == "404"
        words = caught.value.message()
        assert any(word in words for word in ("not shared", "not traced", "logged")), words


def test_async_infer(gateway, headers):
    with triton.InferenceServerClient(gateway.url.removeprefix("http://"), concurrency=4) as client:
        rows = [X * factor for factor in (0.1, 0.2, 0.3, 0.4)]
        asked = [client.async_infer(FP32, [given("x", "FP32", row)], headers=headers()) for row in rows]
        for row, pending in zip(rows, asked, strict=True):
            assert np.array_equal(pending.get_result().as_numpy("y"), -row)
        failing = client.async_infer("nothing", [given("x", "FP32", X)], headers=headers())
        with pytest.raises(InferenceServerException, match="No such model"):
            failing.get_result()
