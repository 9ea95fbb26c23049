"""Tensors are what the protocol, NumPy and ONNX Runtime agree on; nothing is changed in silence."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bedside_client.datatypes import converted, datatype_of, dtype_in_runtime, dtype_of
from bedside_client.errors import ModelFailed
from bedside_client.runtime import LocalModel
from inference_node.oip import DTYPES

VALUES = {
    "BOOL": [True, False],
    "FP16": [0.5, -2.0],
    "FP32": [0.25, -2.0],
    "FP64": [0.1, 1e300],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "BYTES": ["", "ä"],
}


def identity(datatype):
    kind = helper.np_dtype_to_tensor_dtype(dtype_of(datatype))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    return LocalModel(model.SerializeToString())


def test_they_are_those_of_the_node():
    # BF16 is not NumPy's.
    assert set(VALUES) == set(DTYPES) - {"BF16"}
    assert all(dtype_of(name) == DTYPES[name] for name in VALUES if name != "BYTES")


@pytest.mark.parametrize("datatype", VALUES)
def test_a_model_on_a_device_runs_on_every_datatype(datatype):
    values = np.array(VALUES[datatype], dtype_of(datatype))
    (answer,) = identity(datatype).run({"x": values}).values()
    assert datatype_of(answer) == datatype
    assert answer.tolist() == VALUES[datatype]


@pytest.mark.parametrize(
    ("given_values", "datatype"),
    [
        (np.array([1.5], np.float32), "INT64"),
        (np.array([np.nan], np.float32), "INT64"),
        (np.array([np.inf], np.float32), "INT32"),
        (np.array([2**40], np.int64), "INT32"),
        (np.array([-1], np.int64), "UINT8"),
        (np.array([2], np.int64), "BOOL"),
        (np.array(["1"]), "INT64"),
        (np.array([1.0]), "BYTES"),
        (np.array([1j]), "FP32"),
    ],
)
def test_what_does_not_fit_is_not_run_and_not_said(given_values, datatype):
    with pytest.raises(ModelFailed, match=r"^the model could not be run on these inputs$"):
        identity(datatype).run({"x": given_values})


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT32", "BOOL"])
@given(st.lists(st.integers(-(2**31), 2**31), min_size=1))
def test_whole_numbers_stay_what_they_are_or_are_refused(datatype, values):
    array = np.array(values, np.float64)
    try:
        made = converted(array, dtype_of(datatype))
    except ValueError:
        return
    assert made.dtype == dtype_of(datatype)
    assert [float(value) for value in made] == values


def test_floats_are_rounded_and_text_stays_text():
    assert converted(np.array([0.1]), np.dtype(np.float32)).tolist() == [float(np.float32(0.1))]
    assert converted(np.array([3]), np.dtype(np.float32)).tolist() == [3.0]
    assert converted(np.array(["a", "bc"]), np.dtype(object)).tolist() == ["a", "bc"]


def test_what_the_protocol_has_no_name_for_is_refused():
    for array in (np.array([1j]), np.array([b"a"]), np.array([object()]), np.array(["2026"], "M8[D]")):
        with pytest.raises(ValueError, match="there is no datatype"):
            datatype_of(array)
    assert datatype_of(np.array(["a"])) == "BYTES"
    assert datatype_of(np.array([1], ">i4")) == "INT32"
    assert dtype_in_runtime("seq(map(int64,tensor(float)))") is None


def test_a_model_that_gives_no_tensors_is_no_failure_of_the_inputs():
    value = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "sequence",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    with pytest.raises(ModelFailed, match="other than tensors"):
        LocalModel(model.SerializeToString()).run({"x": np.ones(1, np.float32)})
