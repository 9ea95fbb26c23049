"""A model's file as bytes: read once, and refused where it would reach beyond itself.

What is hashed, what is checked and what is served are the same bytes. A file that is replaced while
it is being loaded is so never served under another one's digest, or unchecked.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import onnx

from inference_node.errors import ModelNotReady

MODEL_LIMIT_BYTES: Final = (1 << 31) - 1
"""The most that a protobuf message may have, and so an ONNX model with its weights in it."""

_STANDARD_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}

# ONNX Runtime's node for what TensorRT and others have compiled: a file's name, or code for a device.
_ENGINE: Final = "EPContext"


def read_model(path: Path) -> bytes:
    """Return what is in a model's file.

    Raises:
        ModelNotReady: if it is larger than an ONNX model can be.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > MODEL_LIMIT_BYTES:
            raise ModelNotReady("broken: the model file has 2 GiB or more, and no ONNX model may")
        return file.read(size_bytes)


def safe_operators(data: bytes) -> frozenset[str]:
    """Return the operators of all nodes of a model that is safe to run.

    It is not if it would read other files or run code that does not come with the runtime.

    What counts is the operators of its nodes, wherever they are. Sets of operators that it only imports
    need nothing: ONNX Runtime imports all that it knows into the models that it writes.

    Raises:
        ModelNotReady: with the reason, also if `data` is no model at all.
    """
    try:
        model: Any = onnx.ModelProto.FromString(data)
    except Exception as error:
        raise ModelNotReady("broken: the model file is not an ONNX model") from error
    own = {(function.domain, function.name, function.overload) for function in model.functions}
    used = set()
    for body in _bodies(model):
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(body)):
            raise ModelNotReady("unsafe: the model keeps its weights in other files")
        for node in body.node:
            known = node.domain in _STANDARD_DOMAINS
            if not known and (node.domain, node.op_type, node.overload) not in own:
                raise ModelNotReady("unsafe: the model needs custom operators")
            if node.op_type == _ENGINE:
                raise ModelNotReady("unsafe: the model is a compiled one, which may be in another file")
            used.add(node.op_type)
    return frozenset(used)


def _bodies(model: Any) -> Iterator[Any]:  # noqa: ANN401 onnx has no types
    """Yield all that has nodes: a model's graphs and functions, and the graphs within their nodes."""
    training = [
        graph for info in model.training_info for graph in (info.initialization, info.algorithm)
    ]
    waiting = [model.graph, *model.functions, *training]
    while waiting:
        body = waiting.pop()
        yield body
        for attribute in _attributes(body):
            waiting.extend(attribute.graphs)
            if attribute.HasField("g"):
                waiting.append(attribute.g)


def _attributes(body: Any) -> Iterator[Any]:  # noqa: ANN401 likewise
    for node in body.node:
        yield from node.attribute
    if isinstance(body, onnx.FunctionProto):
        yield from body.attribute_proto  # what its attributes are where a node does not say


def _tensors(body: Any) -> Iterator[Any]:  # noqa: ANN401 likewise
    if isinstance(body, onnx.GraphProto):
        yield from body.initializer
        yield from _dense(body.sparse_initializer)
    for attribute in _attributes(body):
        yield from (attribute.t, *attribute.tensors)
        yield from _dense((attribute.sparse_tensor, *attribute.sparse_tensors))


def _dense(tensors: Iterable[Any]) -> Iterator[Any]:
    for sparse in tensors:
        yield from (sparse.values, sparse.indices)
