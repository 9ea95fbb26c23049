"""The key of a question: equal for equal questions, and meaningless without the tenant's key.

    HMAC-SHA-256(tenant's key, model digest, name and version | inputs by name | outputs | parameters)

A raw request has no inputs but its body, which stands in their place.

Every part is preceded by its length, so that no two different questions have the same encoding.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from inference_node import InferRequest, Tensor
from secure_gateway.exchange import ModelInfo

KEY_BYTES: Final = 32

# They say how an answer travels or how long it may take, not what it is.
_INDIFFERENT: Final = frozenset(
    {"binary_data", "binary_data_output", "binary_data_size", "priority", "timeout"}
)
# A model that keeps state from one request to the next answers the same question differently.
_STATEFUL: Final = frozenset({"sequence_end", "sequence_id", "sequence_start"})

_encode = msgspec.json.Encoder(order="deterministic").encode


def has_one_answer(request: InferRequest) -> bool:
    """Say whether equal requests have equal answers: they bring data and belong to no sequence."""
    return not _STATEFUL & request.parameters.keys() and all(
        tensor.array is not None for tensor in request.inputs
    )


def size_of(request: InferRequest) -> int:
    """Return about how many bytes a key is made of."""
    return len(request.raw or b"") + sum(_tensor_bytes(tensor) for tensor in request.inputs)


def key_of(tenant_key: bytes, model: ModelInfo, request: InferRequest) -> bytes:
    """Return the 32 bytes that stand for asking `model` for `request`.

    The order of the inputs, their encoding on the wire and the request's id make no difference.
    `model` must have a digest and `request` one answer.
    """
    mac = hmac.new(tenant_key, digestmod=hashlib.sha256)
    for part in _parts(model, request):
        mac.update(len(part).to_bytes(8, "little"))
        mac.update(part)
    return mac.digest()


def _parts(model: ModelInfo, request: InferRequest) -> Iterator[bytes | memoryview]:
    yield from (model.name.encode(), model.version.encode(), (model.digest or "").encode())
    yield len(request.inputs).to_bytes(4, "little")
    for tensor in sorted(request.inputs, key=lambda tensor: tensor.name):
        yield tensor.name.encode()
        yield tensor.datatype.encode()
        yield _encode(tensor.shape)
        yield from _content(tensor)
    if request.raw is not None:
        yield request.raw
    # An answer lists its outputs as they were asked for, so their order counts.
    yield _encode([(output.name, _telling(output.parameters)) for output in request.outputs])
    yield _encode(_telling(request.parameters))


def _content(tensor: Tensor) -> Iterator[bytes | memoryview]:
    array = tensor.array
    if array is None:
        message = "only requests that bring their data have a key"
        raise AssertionError(message)
    if array.dtype.kind == "O":
        # The shape says how many follow.
        yield from _elements(array.flat)
        return
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _elements(items: Iterable[Any]) -> Iterator[bytes]:
    for item in items:
        yield item if isinstance(item, bytes) else str(item).encode()


def _telling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in _INDIFFERENT}


def _tensor_bytes(tensor: Tensor) -> int:
    array = tensor.array
    if array is None:
        return 0
    return sum(map(len, _elements(array.flat))) if array.dtype.kind == "O" else array.nbytes
