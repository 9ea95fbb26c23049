"""PyTorch to ONNX, with proof that the artifact computes what the checkpoint does."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from msgspec import Struct

from bedside.errors import BedsideError

OPSET: Final = 18
TOLERANCE: Final = 1e-5
INPUT: Final = "x"
OUTPUT: Final = "y"

_DATATYPES: Final = {"tensor(float)": "FP32", "tensor(int64)": "INT64", "tensor(double)": "FP64"}


class EquivalenceError(BedsideError):
    """Raised when an artifact does not compute what its checkpoint does."""


class Equivalence(Struct, frozen=True, kw_only=True):
    """How far an artifact's outputs were from the checkpoint's, over `rows` held-out rows."""

    rows: int
    max_abs_difference: float
    tolerance: float


class Description(Struct, frozen=True, kw_only=True):
    """One input or output, in the terms of the Open Inference Protocol; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def export(model: torch.nn.Module, features: int, path: Path) -> None:
    """Write `model`, which takes float32 [rows, features], to one ONNX file without external data.

    The input is named `x`, the output `y`; the number of rows stays open.
    """
    export_module(model, {INPUT: torch.zeros(2, features)}, [OUTPUT], path)


def export_module(
    model: torch.nn.Module, examples: Mapping[str, torch.Tensor], outputs: Sequence[str], path: Path
) -> None:
    """Write `model` to one ONNX file; its inputs have the names and types of `examples`, in order.

    The first dimension of every input is the number of rows and stays open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = torch.export.Dim("rows")
    with _quiet():
        torch.onnx.export(
            model.eval(),
            tuple(examples.values()),
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: rows} for _ in examples),
        )
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)


def check_equivalence(
    model: torch.nn.Module,
    path: Path,
    rows: npt.NDArray[np.float32],
    *,
    tolerance: float = TOLERANCE,
) -> Equivalence:
    """Return how closely the artifact at `path` follows `model` on `rows` (float32 [n, features]).

    Raises:
        EquivalenceError: if any output differs by more than `tolerance`.
    """
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (artifact,) = session.run(None, {INPUT: rows})
    with torch.inference_mode():
        reference = model.eval()(torch.from_numpy(rows)).numpy()
    difference = float(np.abs(artifact - reference).max())
    # A NaN compares false with everything and must not pass.
    if not difference <= tolerance:
        raise EquivalenceError(
            f"the ONNX artifact differs from the checkpoint by {difference:.3g} on {len(rows)} rows; "
            f"at most {tolerance:.3g} is allowed"
        )
    return Equivalence(rows=len(rows), max_abs_difference=difference, tolerance=tolerance)


def describe(path: Path) -> tuple[list[Description], list[Description]]:
    """Return the inputs and outputs of the artifact at `path`."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return (
        [_description(value) for value in session.get_inputs()],
        [_description(value) for value in session.get_outputs()],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter says of optional packages and of its own deprecated internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _description(value: Any) -> Description:  # noqa: ANN401 onnxruntime.NodeArg has no types
    return Description(
        name=value.name,
        datatype=_DATATYPES[value.type],
        shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
    )
