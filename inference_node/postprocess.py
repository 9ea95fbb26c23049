"""What is made of an output after the model ran: Triton's classification extension.

Source: triton-inference-server/server, docs/protocol/extension_classification.md, and the server's
`TopkClassifications` for the text of a value (C++ `std::to_string`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference_node.errors import InputInvalid
from inference_node.oip import Array, InferRequest

CLASSIFICATION = "classification"


def asks_of_classes(request: InferRequest) -> bool:
    """Say whether a request asks for the classes of an output instead of its values."""
    return any(CLASSIFICATION in output.parameters for output in request.outputs)


def classes_wanted(parameters: Mapping[str, Any]) -> int | None:
    """Return how many classes an output's parameters ask for, None for the values themselves.

    Raises:
        InputInvalid: if it is not a number above 0.
    """
    k = parameters.get(CLASSIFICATION)
    if k is None:
        return None
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InputInvalid("an output's classification is a number of classes, 1 or more")
    return k


def classify(values: Array, k: int, labels: Sequence[str], *, batched: bool) -> Array:
    """Return the `k` largest values as "value:index" or "value:index:label", largest first.

    `values` is [rows, ...] where `batched`, each row flattened; the result is object [rows, k], or [k]
    if not batched. A row of fewer values gives them all. Equal values keep their order.

    Raises:
        InputInvalid: if the values are not numbers.
    """
    if values.dtype.kind not in "iufV" and values.dtype.name != "bfloat16":
        raise InputInvalid("only an output of numbers can be classified")
    length = math.prod(values.shape[1:] if batched else values.shape)
    rows = values.reshape(-1, length) if length else values.reshape(len(values) if batched else 1, 0)
    top = np.argsort(_descending(rows), axis=1, kind="stable")[:, :k]
    texts = np.empty(top.shape, dtype=np.object_)
    whole = values.dtype.kind in "iu"
    for row, indices in enumerate(top):
        for rank, index in enumerate(indices):
            texts[row, rank] = _text(rows[row, index], int(index), labels, whole=whole)
    return texts if batched else texts[0]


def _descending(rows: Array) -> Array:
    # ~x orders as -x does, and has no overflow at the ends of an integer's range.
    return ~rows if rows.dtype.kind in "iu" else -rows.astype(np.float64)


def _text(value: Any, index: int, labels: Sequence[str], *, whole: bool) -> bytes:  # noqa: ANN401
    number = str(int(value)) if whole else f"{float(value):f}"
    label = labels[index] if index < len(labels) else ""
    return f"{number}:{index}:{label}".encode() if label else f"{number}:{index}".encode()
