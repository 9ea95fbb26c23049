"""Model repositories of a test's own, nodes that serve them, and what to ask them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference_node import InferRequest, Tensor
from support.models import linear_model


def constant_model(path, value):
    """y = x * 0 + value, so that an answer says which file gave it."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "nought"], ["z"]), helper.make_node("Add", ["z", "v"], ["y"])],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [
            numpy_helper.from_array(np.float32(0), "nought"),
            numpy_helper.from_array(np.float32(value), "v"),
        ],
    )
    save(graph, path)


def save(graph, path):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def lay_out(root, config="", versions=(1,), name="m"):
    for version in versions:
        linear_model(root / name / str(version) / "model.onnx")
    if config:
        (root / name / "config.pbtxt").write_text(config)
    return root / name


def request(shape=(1, 3), outputs=(), **parameters):
    x = np.ones(shape, np.float32)
    tensor = Tensor(name="x", datatype="FP32", shape=shape, array=x)
    return InferRequest(inputs=[tensor], outputs=list(outputs), parameters=parameters)


def states(node):
    return {(e.name, e.version): e.reason or e.state for e in node.index()}
