import asyncio

import numpy as np
import onnx
import pytest
from onnx import helper
from support import linear_model

from inference_node import (
    Device,
    InferRequest,
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    Node,
    NodeSettings,
    RepositoryError,
    RequestedOutput,
    Tensor,
)


@pytest.fixture
async def node(tmp_path):
    linear_model(tmp_path / "sepsis/1/model.onnx")
    linear_model(tmp_path / "sepsis/2/model.onnx", features=4)
    (tmp_path / "broken/1").mkdir(parents=True)
    (tmp_path / "broken/1/model.onnx").write_bytes(b"not a model")
    node = Node(NodeSettings(repository=tmp_path))
    await node.start()
    yield node
    await node.close()


def request(shape=(1, 3), name="x", datatype="FP32", outputs=()):
    array = np.ones(shape, dtype=np.float32 if datatype == "FP32" else np.float64)
    tensor = Tensor(name=name, datatype=datatype, shape=tuple(shape), array=array)
    wanted = [RequestedOutput(name=output) for output in outputs]
    return InferRequest(inputs=[tensor], outputs=wanted, id="7")


async def test_it_runs_the_version_that_is_named_or_the_highest(node):
    assert (await node.infer("sepsis", "1", request())).model_version == "1"
    assert (await node.infer("sepsis", None, request((1, 4)))).model_version == "2"


async def test_predictions_are_the_models_own(node, tmp_path):
    weights = linear_model(tmp_path / "other.onnx")
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    tensor = Tensor(name="x", datatype="FP32", shape=(5, 3), array=x)
    answers = await asyncio.gather(
        *(node.infer("sepsis", "1", InferRequest(inputs=[tensor])) for _ in range(9))
    )
    z = np.exp(x @ weights)
    for answer in answers:
        assert np.allclose(answer.outputs[0].array, z / z.sum(1, keepdims=True), atol=1e-6)
        assert answer.outputs[0].shape == (5, 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request((1, 2)), r"x must have the shape \[any, 3\]"),
        (request((3,)), r"x must have the shape"),
        (request(name="z"), "x is missing"),
        (request(datatype="FP64"), "x must be FP32"),
        (request((0, 3)), "no rows"),
        (request(outputs=["nope"]), "gives only: y"),
        (
            InferRequest(inputs=[*request().inputs, *request(name="extra").inputs]),
            "takes only: x",
        ),
        (
            InferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=(1, 3), array=None)]),
            "brings no data",
        ),
    ],
)
async def test_what_does_not_fit_the_model_is_refused_by_name(node, bad, message):
    with pytest.raises(InputInvalid, match=message):
        await node.infer("sepsis", "1", bad)


async def test_a_broken_model_is_reported_and_takes_no_other_down(node):
    states = {(entry.name, entry.version): entry.state for entry in node.index()}
    assert states == {
        ("sepsis", "1"): "READY",
        ("sepsis", "2"): "READY",
        ("broken", "1"): "UNAVAILABLE",
    }
    with pytest.raises(ModelNotReady, match="broken"):
        await node.infer("broken", "1", request())
    with pytest.raises(ModelUnknown):
        await node.infer("nothing", None, request())
    with pytest.raises(ModelUnknown):
        await node.infer("sepsis", "3", request())


async def test_a_model_that_reads_other_files_is_refused(tmp_path):
    path = tmp_path / "spy/1/model.onnx"
    linear_model(path)
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/hostname")
    path.write_bytes(model.SerializeToString())
    node = Node(NodeSettings(repository=tmp_path))
    await node.start()
    assert node.index()[0].reason.startswith("unsafe")
    await node.close()


async def test_a_model_with_custom_operators_is_refused(tmp_path):
    path = tmp_path / "custom/1/model.onnx"
    linear_model(path)
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    model.graph.node[0].domain = "evil.ops"
    path.write_bytes(model.SerializeToString())
    node = Node(NodeSettings(repository=tmp_path))
    await node.start()
    assert "custom operators" in node.index()[0].reason
    await node.close()


async def test_with_release_keys_an_unsigned_model_is_not_served(tmp_path):
    linear_model(tmp_path / "sepsis/1/model.onnx")
    node = Node(NodeSettings(repository=tmp_path, release_keys=("ab" * 32,)))
    await node.start()
    assert node.index()[0].reason.startswith("unsigned")
    await node.close()


async def test_a_gpu_that_is_not_there_is_a_clear_error(tmp_path):
    from inference_node.runtime import NVIDIA_CONTROL

    if NVIDIA_CONTROL.exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RepositoryError, match="no working GPU"):
        await Node(NodeSettings(repository=tmp_path, device=Device.CUDA)).start()


async def test_a_missing_repository_is_a_clear_error(tmp_path):
    with pytest.raises(RepositoryError, match="not a folder"):
        await Node(NodeSettings(repository=tmp_path / "nothing")).start()
