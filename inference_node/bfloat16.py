"""BF16 tensors to and from ONNX Runtime, whose numpy interface has no type for them."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from inference_node.oip import DTYPES, Array

BFLOAT16: Final = DTYPES["BF16"]


def run_with_bfloat16(
    session: ort.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Array]
) -> list[Array]:
    """Return the named outputs, as `session.run` does, BF16 as `ml_dtypes.bfloat16`."""
    feed = {name: _value(array) for name, array in inputs.items()}
    return [_array(value) for value in session.run_with_ort_values(outputs, feed)]


def _value(array: Array) -> Any:  # noqa: ANN401 ONNX Runtime has no types
    if array.dtype != BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)


def _array(value: Any) -> Array:  # noqa: ANN401 likewise
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    shape = value.shape()
    size = math.prod(shape)
    if not size:
        return np.empty(shape, dtype=BFLOAT16)
    # Copied: the memory is the value's, and goes with it.
    bits = np.frombuffer((ctypes.c_uint16 * size).from_address(value.data_ptr()), np.uint16).copy()
    return bits.view(BFLOAT16).reshape(shape)
