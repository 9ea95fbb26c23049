"""Tensors of the shape that callers know, and of the one that the model has: Triton's `reshape`.

Source: triton-inference-server/common, protobuf/model_config.proto, `ModelTensorReshape`; the server's
`ValidateIOShape` for what must agree.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from inference_node.errors import ExecutionFailed
from inference_node.oip import Array

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
"""Runs a model: the names of outputs and the inputs by name, as ONNX Runtime has them."""


class Reshape(Struct, frozen=True):
    """The shape that is `served` and the model's `own`, with the batch dimension, -1 for any size.

    The first -1 of one is the first of the other, and so on.
    """

    served: tuple[int, ...]
    own: tuple[int, ...]

    def served_axis(self, axis: int) -> int | None:
        """Return where an open dimension of the model's is served; None if `axis` is not open."""
        if self.own[axis] != -1:
            return None
        opened = self.own[:axis].count(-1)
        return [place for place, size in enumerate(self.served) if size == -1][opened]


def same_elements(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether tensors of one shape can be given another, whatever the sizes of open dimensions.

    [2, 4, -1, 6] can become [8, -1, 6, 1], and not [6, -1, 8].
    """
    return _products(one) == _products(other)


def run_reshaped(
    run: Run,
    inputs: Mapping[str, Reshape],
    outputs: Mapping[str, Reshape],
    names: Sequence[str],
    feed: Mapping[str, Array],
) -> list[Array]:
    """Return the outputs `names` as they are served, of a `feed` as it is served.

    Raises:
        ExecutionFailed: if the model gives another shape than it was said to.
    """
    own = {
        name: _reshaped(array, inputs[name].served, inputs[name].own) if name in inputs else array
        for name, array in feed.items()
    }
    return [
        _reshaped(array, outputs[name].own, outputs[name].served) if name in outputs else array
        for name, array in zip(names, run(names, own), strict=True)
    ]


def _products(shape: Sequence[int]) -> list[int]:
    """Return how many elements there are before, between and after open dimensions."""
    products = [1]
    for size in shape:
        if size == -1:
            products.append(1)
        else:
            products[-1] *= size
    return products


def _reshaped(array: Array, shape: tuple[int, ...], target: tuple[int, ...]) -> Array:
    if array.ndim != len(shape) or any(
        size not in (-1, actual) for size, actual in zip(shape, array.shape, strict=True)
    ):
        raise ExecutionFailed("an output has another shape than config.pbtxt says")
    sizes = iter([actual for size, actual in zip(shape, array.shape, strict=True) if size == -1])
    return array.reshape([next(sizes) if size == -1 else size for size in target])
