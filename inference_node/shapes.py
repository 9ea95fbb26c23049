"""Whether an output has the shape that its model declares, and as many rows as the request."""

from collections.abc import Mapping, Sequence
from typing import Any

from inference_node.errors import NodeFailed
from inference_node.oip import ModelMetadata


def open_rows(model: ModelMetadata) -> bool:
    """Say whether a model leaves the first dimension of every input and output open.

    Such a model may batch: the first dimension then counts the rows, of answers as of requests.
    """
    tensors = (*model.inputs, *model.outputs)
    return (
        bool(model.inputs)
        and bool(model.outputs)
        and all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)
    )


def says_that_it_batches(config: Mapping[str, Any]) -> bool | None:
    """Return what a model's configuration says of batches (Triton's ModelConfig), None for nothing."""
    rows = config.get("max_batch_size")
    return rows > 0 if isinstance(rows, int) else None


def check_shape(given: Sequence[int], declared: Sequence[int], rows: int | None) -> None:
    """Hold an output's shape against the one that its model declares, where that is not empty.

    Servers may leave shapes out, which cannot be told from a scalar's. With `rows` the first dimension
    is that many.

    Raises:
        NodeFailed: if they differ.
    """
    if declared and (
        len(given) != len(declared)
        # What is below 1 stands for a dimension of any size.
        or any(own > 0 and own != other for own, other in zip(declared, given, strict=True))
    ):
        raise NodeFailed("an output of the node's answer has another shape than its model declares")
    if rows is not None and (not given or given[0] != rows):
        raise NodeFailed("an output of the node's answer has another number of rows")
