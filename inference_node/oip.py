"""Types of the Open Inference Protocol v2: requests, responses and metadata.

Tensors are held as numpy arrays, whatever encoding brought them. BYTES tensors are object arrays of
`bytes`; BF16 uses ml_dtypes.
"""

from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
from msgspec import Struct

Array = npt.NDArray[Any]

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(np.object_),
}
"""The numpy type of each datatype of the protocol."""

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


class Tensor(Struct, kw_only=True):
    """One named tensor; `array` is None where a request names an input and brings no data.

    `binary` says that the sender used, or the receiver wants, the binary representation.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: Array | None
    binary: bool = False


class RequestedOutput(Struct, kw_only=True):
    """An output that the caller asks for by name; `binary` None leaves it to the request.

    `parameters` are those of the output alone, such as `classification`.
    """

    name: str
    binary: bool | None = None
    parameters: dict[str, Any] = {}


class InferRequest(Struct, kw_only=True):
    """One inference request; `raw` is the data of its one input where nothing else was said of that.

    Such a request has no `inputs` until it is where its model is (`inference_node.raw`).
    """

    inputs: list[Tensor]
    outputs: list[RequestedOutput] = []
    id: str | None = None
    parameters: dict[str, Any] = {}
    binary_output: bool = False
    raw: bytes | None = None

    @property
    def carries_tensors(self) -> bool:
        """Whether any input brings data of its own."""
        return self.raw is not None or any(tensor.array is not None for tensor in self.inputs)

    @property
    def rows(self) -> int | None:
        """The first dimension of the first input, or None if it has none; a raw request is one row.

        It counts rows only if the model batches, which a request does not say.
        """
        if self.raw is not None:
            return 1
        shape = self.inputs[0].shape if self.inputs else ()
        return shape[0] if shape else None


class InferResponse(Struct, kw_only=True):
    """One inference response."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}


class TensorMetadata(Struct, kw_only=True, frozen=True):
    """Name, datatype and shape of an input or output; -1 stands for a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: dict[str, Any] = {}


class ServerMetadata(Struct, kw_only=True, frozen=True):
    """What a server is."""

    name: str
    version: str
    extensions: tuple[str, ...]


class RepositoryEntry(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One line of the model repository's index."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""
    digest: str = ""


def datatype_of(array: Array) -> str:
    """Return the protocol's name for the type of `array`; text and bytes are BYTES.

    Raises:
        KeyError: if the protocol has none.
    """
    if array.dtype.kind in "OUS":
        return "BYTES"
    return _NAMES[array.dtype]
