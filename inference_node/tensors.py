"""What every encoding of a tensor shares: its limits, and its elements as little-endian bytes.

Source: Open Inference Protocol v2, "Tensor Data", and Triton's binary tensor data extension, which the
raw contents of gRPC messages follow too.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from inference_node.errors import InputInvalid
from inference_node.oip import DTYPES, Array, RequestedOutput

TENSORS_MAX: Final = 256
DIMENSIONS_MAX: Final = 16
ELEMENTS_MAX: Final = 2**31

_LENGTH_BYTES: Final = 4


def elements_of(shape: Sequence[int], position: int) -> int:
    """Return how many elements a shape has.

    Raises:
        InputInvalid: if a dimension is negative, or there are too many of them or of elements.
    """
    if len(shape) > DIMENSIONS_MAX:
        raise InputInvalid(f"tensor {position} has more than {DIMENSIONS_MAX} dimensions")
    # Every tensor passes here, and a loop costs half of what generators do.
    elements = bounded = 1
    for dimension in shape:
        if dimension < 0:
            raise InputInvalid(f"tensor {position}: a dimension is negative")
        elements *= dimension
        # Zeros count as ones: numpy refuses even an empty array whose other sizes multiply too far.
        bounded *= dimension or 1
    if bounded > ELEMENTS_MAX:
        raise InputInvalid(f"tensor {position} has more than {ELEMENTS_MAX} elements")
    return elements


def from_binary(raw: memoryview, datatype: str, elements: int, position: int) -> Array:
    """Return the flat array that `raw` holds.

    Raises:
        InputInvalid: if it does not hold exactly `elements` of the datatype.
    """
    if datatype == "BYTES":
        return _split_bytes(raw, elements, position)
    dtype = DTYPES[datatype]
    if len(raw) != elements * dtype.itemsize:
        raise InputInvalid(
            f"tensor {position}: its shape needs {elements * dtype.itemsize} bytes of binary data"
        )
    array = np.frombuffer(raw, dtype=dtype.newbyteorder("<") if dtype.kind != "V" else dtype)
    if dtype.kind == "b" and raw and max(raw) > 1:
        raise InputInvalid(f"tensor {position}: a boolean is neither 0 nor 1")
    return array


def to_binary(array: Array, datatype: str) -> bytes:
    """Return the elements of `array`, row by row."""
    if datatype == "BYTES":
        items = [as_bytes(item) for item in array.ravel()]
        return b"".join(len(item).to_bytes(_LENGTH_BYTES, "little") + item for item in items)
    return array.tobytes()


def as_bytes(item: Any) -> bytes:  # noqa: ANN401 an element of an object array
    """Return an element of a BYTES tensor as bytes; models give text too."""
    return item if isinstance(item, bytes) else str(item).encode()


def check_asked_once(outputs: Sequence[RequestedOutput]) -> None:
    """See that no output is asked for twice: it has one place in the answer.

    Raises:
        InputInvalid: if one is.
    """
    if len({output.name for output in outputs}) != len(outputs):
        raise InputInvalid("an output is asked for twice")


def unfit(position: int) -> InputInvalid:
    """Return the error for a value outside its datatype's range."""
    return InputInvalid(f"tensor {position}: a value does not fit its datatype")


def wrong_count(position: int, elements: int) -> InputInvalid:
    """Return the error for data that is longer or shorter than its shape says."""
    return InputInvalid(
        f"tensor {position}: its shape says {elements} elements, its data has another number"
    )


def _split_bytes(raw: memoryview, elements: int, position: int) -> Array:
    values: list[bytes] = []
    offset = 0
    while offset < len(raw) and len(values) < elements:
        start = offset + _LENGTH_BYTES
        offset = start + int.from_bytes(raw[offset:start], "little")
        if offset > len(raw):
            raise InputInvalid(f"tensor {position}: an element is longer than the binary data")
        values.append(bytes(raw[start:offset]))
    if len(values) != elements or offset != len(raw):
        raise InputInvalid(f"tensor {position}: its shape says another number of elements")
    array = np.empty(elements, dtype=np.object_)
    array[:] = values
    return array
