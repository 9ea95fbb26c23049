"""Identity models for every datatype of the protocol, and some of other shapes."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 7, 255]], np.uint8),
    "UINT16": np.array([[0, 7, 65535]], np.uint16),
    "UINT32": np.array([[0, 7, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 7, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 7, 127]], np.int8),
    "INT16": np.array([[-(2**15), 7, 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 7, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 7, 2**63 - 1]], np.int64),
    "FP16": np.array([[-0.5, 1.25, 65504]], np.float16),
    "FP32": np.array([[-0.1, 1.25, 3e38]], np.float32),
    "FP64": np.array([[-0.1, 1.25, 1e300]], np.float64),
    "BF16": np.array([[-0.5, 1.25, 3.0]], ml_dtypes.bfloat16),
    "BYTES": np.array([["", "zwei", "drüben"]], object),
}


def model_name(datatype: str) -> str:
    return f"identity-{datatype.lower()}"


MODELS = ("pair", "spare", *(model_name(datatype) for datatype in ONNX_TYPES))


def write_models(repository: Path) -> None:
    """Write an identity model for each datatype, the first in two versions, and one of two inputs."""
    for datatype, kind in ONNX_TYPES.items():
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        _save(repository / model_name(datatype) / "1", nodes, {"x": kind}, {"y": kind})
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    kind = TensorProto.FLOAT
    _save(repository / model_name("FP32") / "2", nodes, {"x": kind}, {"y": kind})
    # Some tests unload this one, which nothing else uses.
    _save(repository / "spare" / "1", nodes, {"x": kind}, {"y": kind})
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["rest"]),
    ]
    _save(repository / "pair" / "1", nodes, {"a": kind, "b": kind}, {"sum": kind, "rest": kind})


def _save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, int],
    outputs: dict[str, int],
) -> None:
    def values(named: dict[str, int]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, ["rows", 3]) for name, kind in named.items()]

    graph = helper.make_graph(nodes, "model", values(inputs), values(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
