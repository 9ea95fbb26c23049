"""Whether a request fits a model: names, datatypes, shapes and row counts."""

from collections.abc import Mapping, Sequence

import numpy as np

from inference_node.errors import InputInvalid
from inference_node.oip import DTYPES, Array, InferRequest, Tensor, TensorMetadata


def feed_of(
    inputs: Sequence[TensorMetadata], request: InferRequest, *, batches: bool
) -> tuple[Mapping[str, Array], int]:
    """Return the arrays of `request` by input name, and its number of rows.

    Only for a model that `batches` is the first dimension of every input that of the rows; a request
    to another has one row, whatever its shapes.

    Raises:
        InputInvalid: if the request does not fit `inputs`; only the model's own names are quoted.
    """
    sent = {tensor.name: tensor for tensor in request.inputs}
    feed: dict[str, Array] = {}
    rows = 1
    for position, expected in enumerate(inputs):
        tensor = sent.get(expected.name)
        if tensor is None:
            raise InputInvalid(f"the input {expected.name} is missing")
        _check(expected, tensor)
        array = tensor.array
        if array is None:
            raise InputInvalid(f"the input {expected.name} brings no data")
        if expected.datatype == "BYTES":
            array = _decoded(array, expected.name)
        feed[expected.name] = array
        if batches:
            if position and array.shape[0] != rows:
                raise InputInvalid("the inputs have different numbers of rows")
            rows = array.shape[0]
    if len(sent) != len(feed):
        raise InputInvalid(f"the model takes only: {', '.join(feed)}")
    if rows == 0:
        raise InputInvalid("the inputs have no rows")
    return feed, rows


def whole_parameter(request: InferRequest, name: str, most: int) -> int:
    """Return a request parameter that is a whole number from 0 to `most`; 0 if it is not there.

    Raises:
        InputInvalid: if it is anything else.
    """
    value = request.parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InputInvalid(f"the parameter {name} must be a whole number, 0 or more")
    return value


def _check(expected: TensorMetadata, tensor: Tensor) -> None:
    if tensor.datatype != expected.datatype:
        raise InputInvalid(f"the input {expected.name} must be {expected.datatype}")
    fits = len(tensor.shape) == len(expected.shape)
    if fits:
        for own, other in zip(expected.shape, tensor.shape, strict=True):
            if own not in (-1, other):
                fits = False
    if not fits:
        shape = ", ".join("any" if size == -1 else str(size) for size in expected.shape)
        raise InputInvalid(f"the input {expected.name} must have the shape [{shape}]")


def _decoded(array: Array, name: str) -> Array:
    texts = np.empty(array.shape, dtype=DTYPES["BYTES"])
    try:
        texts.flat[:] = [item.decode() for item in array.flat]
    except UnicodeDecodeError as error:
        raise InputInvalid(f"the input {name} holds text that is not UTF-8") from error
    return texts
