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


def refuse_unsafe(data: bytes) -> None:
    """Refuse a model that would read other files or run code that does not come with the runtime.

    Raises:
        ModelNotReady: with the reason, also if `data` is no model at all.
    """
    try:
        model: Any = onnx.ModelProto.FromString(data)
    except Exception as error:
        raise ModelNotReady("broken: the model file is not an ONNX model") from error
    nodes = [node for function in model.functions for node in function.node]
    for tensor in (*_tensors(model.graph), *_tensors_of(nodes)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelNotReady("unsafe: the model keeps its weights in other files")
    imports = [*model.opset_import, *(o for function in model.functions for o in function.opset_import)]
    domains = {opset.domain for opset in imports}
    if not domains <= _STANDARD_DOMAINS:
        raise ModelNotReady("unsafe: the model needs custom operators")


def _tensors(graph: Any) -> Iterator[Any]:  # noqa: ANN401 onnx has no types
    """Yield every tensor that a graph holds, in the graphs of its branches and loops too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(graph.node)


def _tensors_of(nodes: Iterable[Any]) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("g"):
            yield from _tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors(graph)
