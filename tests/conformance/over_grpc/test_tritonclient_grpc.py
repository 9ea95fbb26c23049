"""Triton's gRPC clients, both of them unmodified, against a live gateway: every method and datatype."""

import asyncio
import queue

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from conformance.awaited import Awaited
from conformance.identity import ONNX_TYPES, VALUES, model_name
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

PATIENCE_S = 20


@pytest.fixture(scope="module", params=["grpc", "grpc.aio"])
def client(request, gateway):
    if request.param == "grpc":
        with tritonclient.grpc.InferenceServerClient(gateway.grpc_address) as made:
            yield made
        return
    made = Awaited(lambda: tritonclient.grpc.aio.InferenceServerClient(gateway.grpc_address))
    yield made
    made.leave()


@pytest.fixture(scope="module")
def blocking(gateway):
    with tritonclient.grpc.InferenceServerClient(gateway.grpc_address) as made:
        yield made


def tensor(values, name="x", datatype="FP32"):
    made = InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


def test_the_server_tells_of_itself(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "bedside"
    assert client.get_server_metadata(as_json=True)["version"]


def test_a_model_tells_of_itself(client, facts):
    name = model_name("FP32")
    assert client.is_model_ready(name, headers=facts())
    assert client.is_model_ready(name, "1", headers=facts())
    assert not client.is_model_ready(name, "9", headers=facts())
    assert not client.is_model_ready("nothing", headers=facts())
    metadata = client.get_model_metadata(name, headers=facts(), as_json=True)
    assert metadata["versions"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    config = client.get_model_config(name, headers=facts()).config
    assert (config.name, config.backend) == (name, "onnxruntime")
    assert list(config.input[0].dims) == [3]


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_comes_back_as_it_was_sent(client, facts, datatype):
    values = VALUES[datatype]
    sent = tensor(values, datatype=datatype)
    result = client.infer(
        model_name(datatype), [sent], model_version="1", headers=facts(), request_id="7"
    )
    given = result.as_numpy("y")
    expected = values if datatype != "BYTES" else np.char.encode(values.astype(str), "utf-8")
    assert given.shape == values.shape
    assert given.tolist() == expected.tolist()
    response = result.get_response()
    assert (response.id, response.model_version) == ("7", "1")
    assert response.parameters["bedside_placement"].string_param == "node:local"
    assert response.outputs[0].datatype == datatype


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, facts, algorithm):
    values = np.repeat(VALUES["FP32"], 50, axis=0)
    result = client.infer(
        model_name("FP32"),
        [tensor(values)],
        model_version="1",
        headers=facts(),
        compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("y"), values)


def test_outputs_are_chosen_and_classified(client, facts):
    values = np.array([[1, 2, 3]], np.float32)
    inputs = [tensor(values, "a"), tensor(values, "b")]
    result = client.infer("pair", inputs, outputs=[InferRequestedOutput("rest")], headers=facts())
    assert result.as_numpy("sum") is None
    assert result.as_numpy("rest").tolist() == [[0, 0, 0]]
    result = client.infer(
        "pair", inputs, outputs=[InferRequestedOutput("sum", class_count=2)], headers=facts()
    )
    assert result.as_numpy("sum").tolist() == [[b"6.000000:2", b"4.000000:1"]]


def test_a_newer_version_is_the_one_that_is_meant(client, facts):
    values = VALUES["FP32"]
    result = client.infer(model_name("FP32"), [tensor(values)], headers=facts())
    assert result.get_response().model_version == "2"
    assert np.array_equal(result.as_numpy("y"), -values)


ERRORS = {
    "no token": (None, model_name("FP32"), (1, 3), "UNAUTHENTICATED"),
    "a model that is not there": ({}, "nothing", (1, 3), "NOT_FOUND"),
    "a shape that does not fit": ({}, model_name("FP32"), (1, 4), "INVALID_ARGUMENT"),
    "data of another jurisdiction": (
        {"bedside-jurisdiction": "DE", "bedside-data-class": "phi"},
        model_name("FP32"), (1, 3), "PERMISSION_DENIED"),
    "a fact of no meaning": (
        {"bedside-purpose": "FUN"}, model_name("FP32"), (1, 3), "INVALID_ARGUMENT"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_the_clients_own(client, facts, case):
    stated, model, shape, status = ERRORS[case]
    sent = None if stated is None else facts(**stated)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(np.zeros(shape, np.float32))], headers=sent)
    assert caught.value.status() == f"StatusCode.{status}"
    assert "[record clinic/gateway-1#" in caught.value.message()


def test_statistics_and_the_repository(client, facts, manager):
    name = model_name("INT8")
    client.infer(name, [tensor(VALUES["INT8"], datatype="INT8")], headers=facts())
    (model,) = client.get_inference_statistics(name, headers=manager()).model_stats
    assert (model.name, model.version) == (name, "1")
    assert model.inference_count >= 1
    assert model.inference_stats.success.count >= 1
    every = client.get_inference_statistics(headers=manager()).model_stats
    assert name in {model.name for model in every}
    index = client.get_model_repository_index(headers=manager()).models
    assert {model.state for model in index} == {"READY"}
    client.unload_model(name, headers=manager())
    assert not client.is_model_ready(name, headers=facts())
    states = {
        model.name: model.state for model in client.get_model_repository_index(headers=manager()).models
    }
    assert states[name] == "UNAVAILABLE"
    client.load_model(name, headers=manager())
    assert client.is_model_ready(name, headers=facts())
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nothing", headers=manager())
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        client.unload_model(name, headers=facts())
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"


NOT_OFFERED = {
    "get_trace_settings": (),
    "update_trace_settings": (),
    "get_log_settings": (),
    "update_log_settings": ({"log_info": True},),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("a", "/a", 8),
    "unregister_system_shared_memory": ("a",),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("a", b"\0" * 64, 0, 8),
    "unregister_cuda_shared_memory": ("a",),
}


@pytest.mark.parametrize("method", NOT_OFFERED)
def test_what_has_no_meaning_here_is_unimplemented(client, facts, method):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, method)(*NOT_OFFERED[method], headers=facts())
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_answers_that_nobody_waits_for(blocking, facts):
    answers = queue.Queue()
    blocking.async_infer(
        model_name("FP32"),
        [tensor(VALUES["FP32"])],
        lambda result, error: answers.put((result, error)),
        model_version="1",
        headers=facts(),
    )
    result, error = answers.get(timeout=PATIENCE_S)
    assert error is None
    assert np.array_equal(result.as_numpy("y"), VALUES["FP32"])


def final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def test_a_stream_of_one_response_each(blocking, facts):
    answers = queue.Queue()
    blocking.start_stream(lambda result, error: answers.put((result, error)), headers=facts())
    for name in ("a", "b"):
        blocking.async_stream_infer(model_name("FP32"), [tensor(VALUES["FP32"])], request_id=name)
    blocking.async_stream_infer("nothing", [tensor(VALUES["FP32"])], request_id="c")
    blocking.async_stream_infer(model_name("FP32"), [tensor(VALUES["FP32"])], request_id="d")
    given = [answers.get(timeout=PATIENCE_S) for _ in range(4)]
    blocking.stop_stream()
    assert [r.get_response().id if r else "error" for r, _ in given] == ["a", "b", "error", "d"]
    assert "No such model" in given[2][1].message()
    assert all(final(result) for result, _ in given if result)
    assert answers.empty()


def test_a_stream_of_many_responses_to_one_request(blocking, facts):
    answers = queue.Queue()
    blocking.start_stream(lambda result, error: answers.put((result, error)), headers=facts())
    values = np.array([[8, 16, 32]], np.float32)
    blocking.async_stream_infer("halving", [tensor(values)], enable_empty_final_response=True)
    given = [answers.get(timeout=PATIENCE_S) for _ in range(5)]
    blocking.stop_stream()
    assert [error for _, error in given] == [None] * 5
    assert [result.as_numpy("y").tolist() for result, _ in given] == [
        (values / 2**step).tolist() for step in range(1, 6)
    ]
    assert [final(result) for result, _ in given] == [False] * 4 + [True]
    with pytest.raises(InferenceServerException) as caught:
        blocking.infer("halving", [tensor(values)], headers=facts())
    assert "stream" in caught.value.message()


def test_a_stream_that_is_broken_off_leaves_the_server_well(blocking, facts):
    answers = queue.Queue()
    blocking.start_stream(lambda result, error: answers.put((result, error)), headers=facts())
    blocking.async_stream_infer("halving", [tensor(np.ones((1, 3), np.float32))])
    assert answers.get(timeout=PATIENCE_S)[1] is None
    blocking.stop_stream(cancel_requests=True)
    assert blocking.infer(model_name("FP32"), [tensor(VALUES["FP32"])], headers=facts())


async def test_streams_of_the_asyncio_client(gateway, facts):
    values = np.array([[8, 16, 32]], np.float32)

    async def requests():
        yield {"model_name": "halving", "inputs": [tensor(values)], "request_id": "h"}
        yield {"model_name": "nothing", "inputs": [tensor(values)]}

    async with (
        asyncio.timeout(PATIENCE_S),
        tritonclient.grpc.aio.InferenceServerClient(gateway.grpc_address) as client,
    ):
        given = [pair async for pair in client.stream_infer(requests(), headers=facts())]
    assert [result.as_numpy("y")[0, 0] for result, _ in given[:-1]] == [4, 2, 1, 0.5, 0.25]
    result, error = given[-1]
    assert result is None
    assert "No such model" in error.message()


async def test_a_cancelled_call_of_the_asyncio_client(gateway, facts):
    async with (
        asyncio.timeout(PATIENCE_S),
        tritonclient.grpc.aio.InferenceServerClient(gateway.grpc_address) as client,
    ):
        call = asyncio.create_task(
            client.infer(model_name("FP32"), [tensor(VALUES["FP32"])], headers=facts())
        )
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await client.is_server_ready()
