"""Requests and responses as bytes: JSON, and the binary tensor data extension, both ways.

Source: Open Inference Protocol v2 (kserve/open-inference-protocol, inference_rest.md) and Triton's
binary tensor data extension. Error messages name a rule and the tensor's position; they never repeat
what a caller sent.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from inference_node.errors import InputInvalid
from inference_node.json_values import check_sayable, from_floats, from_json, spelled_out, to_json
from inference_node.oip import (
    DTYPES,
    Array,
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
)
from inference_node.tensors import (
    TENSORS_MAX,
    check_asked_once,
    elements_of,
    from_binary,
    to_binary,
)
from inference_node.wire import MALFORMED

T = TypeVar("T")

_PEEKED_BYTES: Final = 1024


class _WireTensor(Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw | UnsetType = UNSET


class _WireOutput(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _WireRequest(Struct):
    inputs: list[_WireTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_WireOutput] | None = None


class _WireFloats(Struct):
    """A tensor in the form that most callers send: flat numbers, all of one floating-point type."""

    name: str
    shape: list[int]
    datatype: Literal["FP16", "FP32", "FP64"]
    data: list[float]
    parameters: dict[str, Any] | None = None


class _WireFloatRequest(Struct):
    inputs: list[_WireFloats]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_WireOutput] | None = None


class _WireResponse(Struct):
    model_name: str
    outputs: list[_WireTensor]
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_request_decoder = msgspec.json.Decoder(_WireRequest)
_float_request_decoder = msgspec.json.Decoder(_WireFloatRequest)
_response_decoder = msgspec.json.Decoder(_WireResponse)
_encode = msgspec.json.Encoder().encode


def decode_request(body: bytes, *, header_length: int | None = None) -> InferRequest:
    """Return the request in `body`; `header_length` is Inference-Header-Content-Length, if sent.

    An input with neither `data` nor binary data is a named input without a tensor. A head of no bytes
    makes a raw request of the body, which is answered in binary.

    Raises:
        InputInvalid: if the body is not a well-formed request.
    """
    if header_length == 0:
        return InferRequest(inputs=[], raw=body, binary_output=True)
    head, tail = _split(body, header_length)
    wire = _decode_wire(head)
    if not 0 < len(wire.inputs) <= TENSORS_MAX:
        raise InputInvalid(f"a request has 1 to {TENSORS_MAX} inputs")
    parameters = wire.parameters or {}
    request = InferRequest(
        inputs=_tensors(wire.inputs, tail),
        id=wire.id,
        parameters=parameters,
        binary_output=parameters.get("binary_data_output") is True,
    )
    if wire.outputs:
        if len(wire.outputs) > TENSORS_MAX:
            raise InputInvalid(f"a request asks for at most {TENSORS_MAX} outputs")
        request.outputs = [
            RequestedOutput(
                name=output.name, binary=_wants_binary(output), parameters=output.parameters or {}
            )
            for output in wire.outputs
        ]
        check_asked_once(request.outputs)
    return request


def _decode_wire(head: bytes) -> _WireRequest | _WireFloatRequest:
    # Flat floating-point data is read in one pass; otherwise it is skipped first, and read once its
    # datatype is known.
    if head.find(b'"FP', 0, _PEEKED_BYTES) >= 0:
        try:
            return _float_request_decoder.decode(head)
        except MALFORMED:
            pass  # Nested, mixed, binary or malformed: the general form tells them apart.
    try:
        return _read(_request_decoder, head)
    except MALFORMED as error:
        raise InputInvalid("the body is not a JSON inference request (OIP v2)") from error


def _read(decoder: msgspec.json.Decoder[T], head: bytes) -> T:
    try:
        return decoder.decode(head)
    except MALFORMED:
        readable = spelled_out(head)
        if readable is None:
            raise
    return decoder.decode(readable)


def encode_request(request: InferRequest) -> tuple[bytes, int | None]:
    """Return the body for a remote node, tensors in binary, and the length of its JSON head."""
    chunks: list[bytes] = []
    inputs = []
    for tensor in request.inputs:
        if tensor.array is None:
            raise InputInvalid("a node can only run inputs that bring data")
        raw = to_binary(tensor.array, tensor.datatype)
        chunks.append(raw)
        inputs.append(
            {
                "name": tensor.name,
                "shape": tensor.shape,
                "datatype": tensor.datatype,
                "parameters": {"binary_data_size": len(raw)},
            }
        )
    parameters = {**request.parameters, "binary_data_output": True}
    head: dict[str, Any] = {"inputs": inputs, "parameters": parameters}
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": output.name, "parameters": {**output.parameters, "binary_data": True}}
            for output in request.outputs
        ]
    encoded = _encode(head)
    return b"".join([encoded, *chunks]), len(encoded)


def decode_response(body: bytes, *, header_length: int | None = None) -> InferResponse:
    """Return the response in `body`.

    Raises:
        InputInvalid: if the body is not a well-formed response.
    """
    head, tail = _split(body, header_length)
    try:
        wire = _read(_response_decoder, head)
    except MALFORMED as error:
        raise InputInvalid("the body is not a JSON inference response (OIP v2)") from error
    return InferResponse(
        model_name=wire.model_name,
        model_version=wire.model_version or "",
        id=wire.id,
        parameters=wire.parameters or {},
        outputs=_tensors(wire.outputs, tail),
    )


def encode_response(response: InferResponse, request: InferRequest | None) -> tuple[bytes, int | None]:
    """Return the body, and the length of its JSON head where tensors follow in binary.

    An output is binary if `request` asked for it so, by name or for all.
    """
    default = request.binary_output if request is not None else False
    wanted = (
        {output.name: output.binary for output in request.outputs}
        if request is not None and request.outputs
        else {}
    )
    chunks: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for tensor in response.outputs:
        array = tensor.array
        if array is None:
            message = "a response's tensors have data"
            raise AssertionError(message)
        fields: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
        }
        binary = wanted.get(tensor.name) if wanted else None
        if default if binary is None else binary:
            raw = to_binary(array, tensor.datatype)
            chunks.append(raw)
            fields["parameters"] = {"binary_data_size": len(raw)}
        else:
            fields["data"] = to_json(array)
        outputs.append(fields)
    head: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "outputs": outputs,
    }
    if response.id:
        head["id"] = response.id
    if response.parameters:
        head["parameters"] = response.parameters
    encoded = _encode(head)
    if not chunks:
        return encoded, None
    return b"".join([encoded, *chunks]), len(encoded)


def check_json(response: InferResponse, request: InferRequest | None) -> None:
    """See that every output that goes in JSON can be said in it.

    Raises:
        InputInvalid: if one cannot: `encode_response` would fail on it, or say something else.
    """
    for tensor in response.outputs:
        if tensor.array is not None and not _goes_in_binary(tensor.name, request):
            check_sayable(tensor.array)


def _goes_in_binary(name: str, request: InferRequest | None) -> bool:
    if request is None:
        return False
    for output in request.outputs:
        if output.name == name and output.binary is not None:
            return output.binary
    return request.binary_output


def tensor_from_json(name: str, datatype: str, shape: tuple[int, ...], data: list[Any]) -> Tensor:
    """Return a tensor from already parsed JSON.

    Raises:
        InputInvalid: if data, datatype and shape do not agree.
    """
    try:
        raw = msgspec.Raw(_encode(data))
    except (OverflowError, RecursionError) as error:
        raise InputInvalid("the data is nested too deep or has numbers past 64 bits") from error
    wire = _WireTensor(name=name, shape=list(shape), datatype=datatype, data=raw)
    return _tensors([wire], memoryview(b""))[0]


def _split(body: bytes, header_length: int | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if header_length > len(body):
        raise InputInvalid("Inference-Header-Content-Length is longer than the body")
    return body[:header_length], memoryview(body)[header_length:]


def _tensors(wires: Sequence[_WireTensor | _WireFloats], tail: memoryview) -> list[Tensor]:
    tensors = []
    offset = 0
    seen = set()
    for position, wire in enumerate(wires):
        if wire.name in seen:
            raise InputInvalid(f"tensor {position} has the name of an earlier one")
        seen.add(wire.name)
        dtype = DTYPES.get(wire.datatype)
        if dtype is None:
            raise InputInvalid(f"tensor {position}: datatype is not one of {', '.join(DTYPES)}")
        elements = elements_of(wire.shape, position)
        size = wire.parameters.get("binary_data_size") if wire.parameters else None
        array: Array | None = None
        if size is not None:
            if wire.data is not UNSET:
                raise InputInvalid(f"tensor {position} has both `data` and binary data")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise InputInvalid(f"tensor {position}: binary_data_size is not a size")
            if offset + size > len(tail):
                raise InputInvalid(f"tensor {position}: the body ends before its binary data")
            raw = tail[offset : offset + size]
            array = from_binary(raw, wire.datatype, elements, position).reshape(wire.shape)
            offset += size
        elif isinstance(wire, _WireFloats):
            array = from_floats(wire.data, wire.datatype, elements, position).reshape(wire.shape)
        elif wire.data is not UNSET:
            array = from_json(wire.data, dtype, elements, position).reshape(wire.shape)
        tensors.append(
            Tensor(
                name=wire.name,
                datatype=wire.datatype,
                shape=tuple(wire.shape),
                array=array,
                binary=size is not None,
            )
        )
    if offset != len(tail):
        raise InputInvalid("the body goes on after its last tensor")
    return tensors


def _wants_binary(output: _WireOutput) -> bool | None:
    wanted = output.parameters.get("binary_data") if output.parameters else None
    if wanted is not None and not isinstance(wanted, bool):
        raise InputInvalid("an output's binary_data is true or false")
    return wanted
