"""Raw binary requests: a body that is the data of the model's one input and nothing else.

Source: Triton's binary tensor data extension, "Raw Binary Request", and Triton's
`InferenceRequest::Normalize`, which finds the shape in the same way. What such a body means is known
only where the model is; until then it travels as it came.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from inference_node.errors import InputInvalid
from inference_node.oip import DTYPES, Array, InferRequest, Tensor, TensorMetadata
from inference_node.tensors import elements_of, from_binary


def completed(
    request: InferRequest, inputs: Sequence[TensorMetadata], *, batches: bool
) -> InferRequest:
    """Return what a raw `request` asks of a model that takes `inputs`.

    It is one row where the model batches. One further dimension may be open: it is as long as the body
    says. Text is one element.

    Raises:
        InputInvalid: if the model takes several inputs, or the body does not tell the shape of its own.
    """
    raw = request.raw
    if raw is None:
        message = "only a raw request is completed"
        raise AssertionError(message)
    if len(inputs) != 1:
        raise InputInvalid("a raw request is for a model of one input; name the inputs in a JSON head")
    (declared,) = inputs
    shape = [1, *declared.shape[1:]] if batches else list(declared.shape)
    array = _text(raw, shape) if declared.datatype == "BYTES" else _numbers(raw, declared, shape)
    tensor = Tensor(
        name=declared.name,
        datatype=declared.datatype,
        shape=array.shape,
        array=array,
        binary=True,
    )
    return replace(request, inputs=[tensor], raw=None)


def _text(raw: bytes, shape: Sequence[int]) -> Array:
    if any(size != 1 for size in shape):
        raise InputInvalid("text is taken raw by models whose input is one element")
    array = np.empty(shape, dtype=np.object_)
    array.flat[0] = raw
    return array


def _numbers(raw: bytes, declared: TensorMetadata, shape: list[int]) -> Array:
    unknown = [position for position, size in enumerate(shape) if size == -1]
    if len(unknown) > 1:
        raise InputInvalid(f"a raw body does not tell the shape of {declared.name}: send its shape")
    for position in unknown:
        shape[position] = 1
        each_bytes = elements_of(shape, 0) * DTYPES[declared.datatype].itemsize
        if not each_bytes or len(raw) % each_bytes:
            raise InputInvalid(f"a raw body of {declared.name} has a multiple of {each_bytes} bytes")
        shape[position] = len(raw) // each_bytes
    return from_binary(memoryview(raw), declared.datatype, elements_of(shape, 0), 0).reshape(shape)
