"""What tensors hold, by the names of the Open Inference Protocol, NumPy and ONNX Runtime."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# ONNX Runtime's names of the types that both others have (OIP v2, "Tensor Data Types").
_BY_RUNTIME: Final = {
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(string)": "BYTES",
}
_DTYPES: Final = {
    "BOOL": np.dtype(np.bool_),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "BYTES": np.dtype(np.object_),
}
_DATATYPES: Final = {dtype: name for name, dtype in _DTYPES.items()}


def datatype_of(array: Array) -> str:
    """Return the protocol's name for what `array` holds; text is BYTES.

    Raises:
        ValueError: if it has none.
    """
    kind = array.dtype.kind
    datatype = "BYTES" if kind == "U" else _DATATYPES.get(array.dtype.newbyteorder("="))
    if datatype is None or (kind == "O" and not all(isinstance(each, str) for each in array.flat)):
        raise ValueError(f"there is no datatype for values of type {array.dtype}")
    return datatype


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Return NumPy's type for one of the protocol's; objects for one that it has not."""
    return _DTYPES.get(datatype, np.dtype(np.object_))


def dtype_in_runtime(name: str) -> np.dtype[Any] | None:
    """Return NumPy's type for one of ONNX Runtime's, None where there is none."""
    datatype = _BY_RUNTIME.get(name)
    return None if datatype is None else _DTYPES[datatype]


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return `array` as `dtype`: rounded to floating point, else only if every value stays the same.

    Raises:
        ValueError: if one does not.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind == "f" and array.dtype.kind in "biuf":
        return array.astype(dtype)
    if dtype.kind == "O" and array.dtype.kind in "US":
        return array.astype(dtype)
    with np.errstate(invalid="ignore"):
        made = array.astype(dtype)
    if dtype.kind == "O" or not np.array_equal(made, array):
        raise ValueError(f"values of type {array.dtype} do not fit in {dtype}")
    return made
