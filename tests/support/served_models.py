"""Model repositories of a few ONNX models, and a node in this process that serves one."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from inference_node import InferRequest, Node, NodeSettings, RequestedOutput, Tensor
from support.repositories import save

Shape = Sequence[int | str | None]


def write_model(
    root: Path,
    nodes: Iterable[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    config: str = "",
    constants: Iterable[Any] = (),
) -> Path:
    """Write the model `m` of FP32 tensors, by their shapes, and return its folder."""

    def values(shapes: Mapping[str, Shape]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(list(nodes), "m", values(inputs), values(outputs), list(constants))
    save(graph, root / "m" / "1" / "model.onnx")
    if config:
        (root / "m" / "config.pbtxt").write_text(config)
    return root / "m"


@contextlib.asynccontextmanager
async def serving(root: Path, **settings: Any) -> AsyncIterator[Node]:
    node = Node(NodeSettings(repository=root, **settings))
    await node.start()
    try:
        yield node
    finally:
        await node.close()


async def reason(root: Path) -> str:
    """Return why the node does not serve the model `m`; nothing if it does."""
    async with serving(root) as node:
        (entry,) = node.index()
        return entry.reason


def asking(outputs: Sequence[RequestedOutput] = (), **arrays: Any) -> InferRequest:
    """Return a request with these FP32 inputs."""
    given = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    tensors = [
        Tensor(name=name, datatype="FP32", shape=array.shape, array=array)
        for name, array in given.items()
    ]
    return InferRequest(inputs=tensors, outputs=list(outputs))


async def ask(
    node: Node, outputs: Sequence[RequestedOutput] = (), **arrays: Any
) -> dict[str, np.ndarray]:
    """Ask the model `m` and return its outputs."""
    answer = await node.infer("m", None, asking(outputs, **arrays))
    assert all(t.array is not None and t.shape == t.array.shape for t in answer.outputs)
    return {tensor.name: tensor.array for tensor in answer.outputs if tensor.array is not None}
