"""Inference requests and responses as protobuf messages, both ways; metadata on the way out.

Source: protobuf/grpc_service.proto of triton-inference-server/common. Error messages name a rule and
the tensor's position; they never repeat what a caller sent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError, Message

from inference_node.errors import InputInvalid
from inference_node.oip import (
    DTYPES,
    Array,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    Tensor,
)
from inference_node.schema import message_class
from inference_node.tensors import (
    TENSORS_MAX,
    as_bytes,
    check_asked_once,
    elements_of,
    from_binary,
    to_binary,
    unfit,
    wrong_count,
)

ModelInferRequest: Final = message_class("ModelInferRequest")
ModelInferResponse: Final = message_class("ModelInferResponse")
ModelMetadataResponse: Final = message_class("ModelMetadataResponse")
ServerMetadataResponse: Final = message_class("ServerMetadataResponse")

BINARY_OUTPUT: Final = "binary_data_output"

# FP16 and BF16 have no typed contents: they are raw or nothing.
_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_UINT64_MAX: Final = (1 << 64) - 1


def parse(message: Any, encoded: bytes) -> Any:  # noqa: ANN401 classes that protobuf makes at run time
    """Return the message of class `message` that `encoded` holds.

    Raises:
        InputInvalid: if it holds none.
    """
    try:
        return message.FromString(encoded)
    except DecodeError as error:
        raise InputInvalid("the message is not what the protocol's schema says") from error


def request_of(message: Any) -> InferRequest:  # noqa: ANN401
    """Return the request that a ModelInferRequest holds.

    An input with neither typed nor raw contents is a named input without a tensor. Outputs are wanted
    as the inputs came, typed or raw, unless the parameter `binary_data_output` says otherwise.

    Raises:
        InputInvalid: if the message contradicts itself.
    """
    inputs, raw = message.inputs, message.raw_input_contents
    if not 0 < len(inputs) <= TENSORS_MAX:
        raise InputInvalid(f"a request has 1 to {TENSORS_MAX} inputs")
    if raw and len(raw) != len(inputs):
        raise InputInvalid("raw_input_contents has another number of entries than there are inputs")
    tensors: list[Tensor] = []
    seen = set()
    for position, wire in enumerate(inputs):
        tensor = _tensor(wire, raw[position] if raw else None, position)
        if tensor.name in seen:
            raise InputInvalid(f"tensor {position} has the name of an earlier one")
        seen.add(tensor.name)
        tensors.append(tensor)
    parameters = _parameters(message.parameters) if message.parameters else {}
    wanted = parameters.get(BINARY_OUTPUT)
    typed = any(tensor.array is not None and not tensor.binary for tensor in tensors)
    return InferRequest(
        inputs=tensors,
        outputs=_outputs(message.outputs) if message.outputs else [],
        id=message.id or None,
        parameters=parameters,
        binary_output=wanted if isinstance(wanted, bool) else not typed,
    )


def message_of(response: InferResponse, request: InferRequest | None) -> Message:
    """Return the ModelInferResponse of `response`.

    Contents are raw or typed for all outputs alike, as `request` wants them; raw where an output's
    datatype has no typed contents.
    """
    tensors = response.outputs
    raw = (
        request is None
        or request.binary_output
        or not all(tensor.datatype in _CONTENTS for tensor in tensors)
    )
    message: Message = ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs=[_output(tensor, raw=raw) for tensor in tensors],
        raw_output_contents=[_raw(tensor) for tensor in tensors] if raw else (),
    )
    if response.parameters:
        set_parameters(message, response.parameters)
    return message


def set_parameters(message: Any, parameters: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Add `parameters` to a message that has a map of them; what is None is left out."""
    for name, value in parameters.items():
        if value is not None:
            field, encoded = _choice(value)
            setattr(message.parameters[name], field, encoded)


def server_metadata_message(metadata: ServerMetadata) -> Message:
    """Return the ServerMetadataResponse of `metadata`."""
    message: Message = ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )
    return message


def model_metadata_message(metadata: ModelMetadata) -> Message:
    """Return the ModelMetadataResponse of `metadata`."""
    kind = ModelMetadataResponse.TensorMetadata
    message: Message = ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[kind(name=t.name, datatype=t.datatype, shape=t.shape) for t in metadata.inputs],
        outputs=[kind(name=t.name, datatype=t.datatype, shape=t.shape) for t in metadata.outputs],
    )
    return message


def _tensor(wire: Any, raw: bytes | None, position: int) -> Tensor:  # noqa: ANN401
    datatype = wire.datatype
    if datatype not in DTYPES:
        raise InputInvalid(f"tensor {position}: datatype is not one of {', '.join(DTYPES)}")
    shape = tuple(wire.shape)
    elements = elements_of(shape, position)
    array: Array | None = None
    if raw is not None:
        if wire.HasField("contents"):
            raise InputInvalid(f"tensor {position} has both `contents` and raw contents")
        array = from_binary(memoryview(raw), datatype, elements, position).reshape(shape)
    elif wire.HasField("contents"):
        array = _from_contents(wire.contents, datatype, elements, position).reshape(shape)
    return Tensor(name=wire.name, datatype=datatype, shape=shape, array=array, binary=raw is not None)


def _from_contents(contents: Any, datatype: str, elements: int, position: int) -> Array:  # noqa: ANN401
    name = _CONTENTS.get(datatype)
    if name is None:
        raise InputInvalid(f"tensor {position}: its datatype is sent as raw contents only")
    if any(field.name != name for field, _ in contents.ListFields()):
        raise InputInvalid(f"tensor {position}: its datatype is sent as {name}")
    values = getattr(contents, name)
    if len(values) != elements:
        raise wrong_count(position, elements)
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(elements, dtype=dtype)
        array[:] = values
        return array
    if name in ("int_contents", "uint_contents") and dtype.itemsize < np.dtype(np.int32).itemsize:
        wide = np.fromiter(values, np.int64, elements)
        limits = np.iinfo(dtype)
        if elements and not (limits.min <= wide.min() and wide.max() <= limits.max):
            raise unfit(position)
        return wide.astype(dtype)
    return np.fromiter(values, dtype, elements)


def _outputs(wires: Sequence[Any]) -> list[RequestedOutput]:
    if len(wires) > TENSORS_MAX:
        raise InputInvalid(f"a request asks for at most {TENSORS_MAX} outputs")
    outputs = [
        RequestedOutput(name=wire.name, parameters=_parameters(wire.parameters)) for wire in wires
    ]
    check_asked_once(outputs)
    return outputs


def _parameters(wires: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {}
    for name, wire in wires.items():
        choice = wire.WhichOneof("parameter_choice")
        if choice is None:
            raise InputInvalid("a parameter has no value")
        parameters[name] = getattr(wire, choice)
    return parameters


def _output(tensor: Tensor, *, raw: bool) -> Message:
    wire = ModelInferResponse.InferOutputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
    if not raw:
        getattr(wire.contents, _CONTENTS[tensor.datatype]).extend(_values(tensor))
        # An empty tensor has contents too, unlike one that is raw.
        wire.contents.SetInParent()
    message: Message = wire
    return message


def _values(tensor: Tensor) -> Iterable[Any]:
    array = _array(tensor)
    if array.dtype.kind == "O":
        return [as_bytes(item) for item in array.ravel()]
    values: list[Any] = array.ravel().tolist()
    return values


def _raw(tensor: Tensor) -> bytes:
    return to_binary(_array(tensor), tensor.datatype)


def _array(tensor: Tensor) -> Array:
    if tensor.array is None:
        message = "a response's tensors have data"
        raise AssertionError(message)
    return tensor.array


def _choice(value: Any) -> tuple[str, Any]:  # noqa: ANN401 what a server's JSON may hold
    match value:
        case bool():
            return "bool_param", value
        case int() if _INT64_MIN <= value <= _INT64_MAX:
            return "int64_param", value
        case int() if 0 <= value <= _UINT64_MAX:
            return "uint64_param", value
        case float():
            return "double_param", value
        case str():
            return "string_param", value
        case _:
            # The schema has no lists and no objects; servers of the REST protocol may send them.
            return "string_param", json.dumps(value)
