"""Tensors to and from servers that are not ours: what they may lack, and what is believed of them.

Not every server of the protocol takes the binary tensor data extension (MLServer does not, Triton
does), so requests can be written as JSON. No answer is believed: it must be of the model that was
asked, and only outputs that were asked for, of the datatypes and shapes that the model declares, go on.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from inference_node.codec import decode_response, encode_request
from inference_node.errors import InputInvalid, NodeFailed
from inference_node.oip import (
    DTYPES,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RepositoryEntry,
    Tensor,
    TensorMetadata,
)
from inference_node.shapes import check_shape
from inference_node.statistics import ModelStatistics
from inference_node.wire import MALFORMED

BINARY_EXTENSION: Final = "binary_tensor_data"
STREAM_EXTENSION: Final = "infer_stream"
READY: Final = "READY"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
# Parameters under this prefix are the gateway's own statements about an answer.
_OWN_PARAMETERS: Final = "bedside_"
_PARAMETERS_MAX: Final = 64
_TEXT_MAX: Final = 1024
_FLOATING: Final = ("FP16", "FP32", "FP64", "BF16")
_JSON_DROPS: Final = frozenset({"binary_data", "binary_data_size", "binary_data_output"})
_encode = msgspec.json.Encoder().encode


class _Entry(Struct):
    name: str
    version: str | int | None = None
    state: str | None = None
    reason: str | None = None
    digest: str | None = None


class _Tensor(Struct):
    name: str
    datatype: str
    shape: list[int] | None = None


class _Model(Struct):
    name: str
    versions: list[str | int] | None = None
    platform: str | None = None
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None
    parameters: dict[str, Any] | None = None


class _Listing(Struct):
    models: list[str]


class _Statistics(Struct):
    model_stats: list[ModelStatistics]


def encode_for(request: InferRequest, *, binary: bool) -> tuple[bytes, int | None]:
    """Return the body of `request`, and the length of its JSON head where tensors follow in binary.

    Raises:
        InputInvalid: if an input cannot be said in JSON and the node takes nothing else.
    """
    if request.raw is not None:
        if not binary:
            raise InputInvalid(
                "the model's node takes JSON only: send the input with its name and shape"
            )
        return request.raw, 0
    if binary:
        return encode_request(request)
    head: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "shape": tensor.shape,
                "datatype": tensor.datatype,
                "data": _json_data(tensor),
            }
            for tensor in request.inputs
        ]
    }
    parameters = _without_binary(request.parameters)
    if parameters:
        head["parameters"] = parameters
    if request.id:
        head["id"] = request.id
    if request.outputs:
        head["outputs"] = [
            {"name": output.name, **({"parameters": kept} if kept else {})}
            for output in request.outputs
            for kept in (_without_binary(output.parameters),)
        ]
    return _encode(head), None


def decode_from(body: bytes, header_length: str | None) -> InferResponse:
    """Return the response in `body`; `header_length` is the header as it came.

    `null` stands for a number that JSON cannot say (NaN or an infinity), and becomes NaN.

    Raises:
        NodeFailed: if it is no response of the protocol, whatever it is.
    """
    if header_length is not None and not _DIGITS.fullmatch(header_length):
        raise NodeFailed("the node's Inference-Header-Content-Length is not a length")
    length = None if header_length is None else int(header_length)
    try:
        return decode_response(body, header_length=length)
    except InputInvalid as error:
        if length is None and b"null" in body:
            response = _decode_with_nulls(body)
            if response is not None:
                return response
        raise NodeFailed("the node's answer is not an inference response") from error


def checked(
    response: InferResponse,
    request: InferRequest,
    *,
    name: str,
    version: str | None,
    outputs: Sequence[TensorMetadata] = (),
    derived: Sequence[TensorMetadata] = (),
    shapes: bool = True,
    rows: int | None = None,
) -> InferResponse:
    """Return what of a node's answer may go on; `outputs` is what the model declares, if anything.

    `derived` are outputs that parameters of the request ask for. `rows` is how many rows each output
    has, where the model batches. Without `shapes` none is looked at.

    Outputs that nobody asked for are dropped, and so are parameters that only the gateway may state.
    The identifier is the request's own: some servers make one up.

    Raises:
        NodeFailed: if the answer is another model's, lacks an output, or has another datatype or shape.
        InputInvalid: if what the caller asked for is what the model does not declare.
    """
    if response.model_name != name:
        raise NodeFailed("the node's answer is of another model")
    answered = response.model_version if _VERSION.fullmatch(response.model_version) else ""
    if version and answered and answered != version:
        raise NodeFailed("the node's answer is of another version")
    declared = {output.name: output.datatype for output in outputs}
    expected_shapes = {output.name: output.shape for output in outputs} if shapes else {}
    classified = {output.name for output in request.outputs if "classification" in output.parameters}
    given = {tensor.name: tensor for tensor in response.outputs}
    wanted = [output.name for output in request.outputs] or [*declared] or [*given]
    declared.update((output.name, output.datatype) for output in derived)
    wanted += [output.name for output in derived]
    kept: list[Tensor] = []
    for wanted_name in dict.fromkeys(wanted):
        tensor = given.get(wanted_name)
        if tensor is None or tensor.array is None:
            if wanted_name not in declared:
                # The node may well be right; it must not be held against it.
                raise InputInvalid("the model gives no output of a name that was asked for")
            raise NodeFailed("the node's answer lacks an output")
        expected = "BYTES" if wanted_name in classified else declared.get(wanted_name)
        if expected is not None and tensor.datatype != expected:
            if wanted_name in classified and tensor.datatype == declared.get(wanted_name):
                raise InputInvalid("the model's node does not offer classification")
            raise NodeFailed("an output of the node's answer has another datatype")
        if wanted_name in expected_shapes and wanted_name not in classified:
            check_shape(tensor.shape, expected_shapes[wanted_name], rows)
        kept.append(tensor)
    return InferResponse(
        model_name=name,
        model_version=version or answered,
        id=request.id,
        outputs=kept,
        parameters=_stated(response.parameters),
    )


def decode_index(body: bytes) -> list[RepositoryEntry]:
    """Return the models of a repository index that can be asked for by name.

    Names that cannot stand in a path, and digests that are none, are left out; a missing version
    (MLServer) is "". States are compared without regard to case.

    Raises:
        NodeFailed: if it is no index.
    """
    try:
        entries = msgspec.json.decode(body, type=list[_Entry])
    except MALFORMED as error:
        raise NodeFailed("the node's answer is not a repository index") from error
    found = []
    for entry in entries:
        version = "" if entry.version is None else str(entry.version)
        if not _NAME.fullmatch(entry.name) or (version and not _VERSION.fullmatch(version)):
            continue
        digest = entry.digest or ""
        found.append(
            RepositoryEntry(
                name=entry.name,
                version=version,
                state=(entry.state or "").upper(),
                reason=(entry.reason or "")[:_TEXT_MAX],
                digest=digest if _DIGEST.fullmatch(digest) else "",
            )
        )
    return found


def decode_listing(body: bytes) -> tuple[str, ...]:
    """Return the names in KServe's `GET /v2/models`.

    Raises:
        NodeFailed: if it is no such list.
    """
    try:
        names = msgspec.json.decode(body, type=_Listing).models
    except MALFORMED as error:
        raise NodeFailed("the node's answer is not a list of models") from error
    return tuple(name for name in names if _NAME.fullmatch(name))


def decode_metadata(body: bytes, name: str) -> ModelMetadata:
    """Return a model's metadata; what a server leaves out is empty.

    Raises:
        NodeFailed: if it is not the metadata of `name`, or names datatypes that do not exist.
    """
    try:
        model = msgspec.json.decode(body, type=_Model)
    except MALFORMED as error:
        raise NodeFailed("the node's answer is not a model's metadata") from error
    if model.name != name:
        raise NodeFailed("the node's answer is another model's metadata")
    return ModelMetadata(
        name=name,
        versions=tuple(
            str(version) for version in model.versions or () if _VERSION.fullmatch(str(version))
        ),
        platform=(model.platform or "")[:_TEXT_MAX],
        inputs=_tensors(model.inputs),
        outputs=_tensors(model.outputs),
        parameters=_stated(model.parameters or {}),
    )


def decode_statistics(body: bytes) -> list[ModelStatistics]:
    """Return the statistics of models that can be asked for by name (statistics extension).

    Raises:
        NodeFailed: if it is no such report.
    """
    try:
        models = msgspec.json.decode(body, type=_Statistics).model_stats
    except MALFORMED as error:
        raise NodeFailed("the node's answer is not a report of statistics") from error
    return [
        model
        for model in models
        if _NAME.fullmatch(model.name) and (not model.version or _VERSION.fullmatch(model.version))
    ]


def decode_config(body: bytes, name: str) -> dict[str, Any]:
    """Return a model's configuration (model configuration extension).

    Raises:
        NodeFailed: if it is not the configuration of `name`.
    """
    try:
        config: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except MALFORMED as error:
        raise NodeFailed("the node's answer is not a model's configuration") from error
    if config.get("name") != name:
        raise NodeFailed("the node's answer is another model's configuration")
    return config


def _tensors(tensors: Sequence[_Tensor] | None) -> tuple[TensorMetadata, ...]:
    if any(tensor.datatype not in DTYPES for tensor in tensors or ()):
        raise NodeFailed("the node's metadata names a datatype that the protocol does not have")
    return tuple(
        TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tuple(tensor.shape or ()))
        for tensor in tensors or ()
    )


def _json_data(tensor: Tensor) -> list[Any]:
    array = tensor.array
    if array is None:
        raise InputInvalid("a node can only run inputs that bring data")
    if tensor.datatype == "BYTES":
        try:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
        except UnicodeDecodeError as error:
            raise InputInvalid("the model's node takes JSON only, so BYTES must be UTF-8") from error
    if tensor.datatype in _FLOATING:
        floats = array.astype(np.float64).ravel()
        if not np.isfinite(floats).all():
            raise InputInvalid("the model's node takes JSON only, so numbers must be finite")
        return floats.tolist()
    return array.ravel().tolist()


def _without_binary(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in _JSON_DROPS}


def _decode_with_nulls(body: bytes) -> InferResponse | None:
    """Return a JSON response whose floating-point data may hold `null`, or None if it is none."""
    try:
        fields = msgspec.json.decode(body)
        outputs = fields["outputs"]
        missing: list[Any] = []
        for output in outputs:
            if output["datatype"] in _FLOATING:
                flat = _leaves(output["data"])
                missing.append([position for position, leaf in enumerate(flat) if leaf is None])
                output["data"] = [0.0 if leaf is None else leaf for leaf in flat]
            else:
                missing.append([])
        response = decode_response(_encode(fields))
    except (*MALFORMED, KeyError, TypeError, OverflowError, InputInvalid):
        return None
    for tensor, positions in zip(response.outputs, missing, strict=True):
        if positions and tensor.array is not None:
            flat_array = tensor.array.flatten()
            flat_array[positions] = math.nan
            tensor.array = flat_array.reshape(tensor.shape)
    return response


def _leaves(data: Any) -> list[Any]:  # noqa: ANN401 parsed JSON
    if not isinstance(data, list):
        raise TypeError
    level = data
    while level and all(isinstance(item, list) for item in level):
        level = [leaf for item in level for leaf in item]
    return level


def _stated(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that are short scalars and not the gateway's own."""
    stated = {
        name: value
        for name, value in parameters.items()
        if isinstance(value, bool | int | float | str)
        and len(name) <= _TEXT_MAX
        and not name.startswith(_OWN_PARAMETERS)
        and not (isinstance(value, str) and len(value) > _TEXT_MAX)
    }
    return dict(list(stated.items())[:_PARAMETERS_MAX])
