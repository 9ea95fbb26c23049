"""INT8 quantization of an ONNX model, by ONNX Runtime's own tool.

Static: weights and activations are INT8, the activations' ranges measured on rows (QDQ format).
Dynamic: weights are 8-bit, and ranges are measured at each run, so no rows are needed.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

from bedside.errors import BedsideError
from bedside.models.rows import Rows

NAMES_SHOWN: Final = 20
_QUANTIZED: Final = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "QAttention",
        "QGemm",
        "QuantizeLinear",
    }
)


class QuantizationImpossible(BedsideError):
    """Raised when ONNX Runtime cannot quantize a model; says what stands in the way."""


class Ranges(StrEnum):
    """How the ranges of activations are chosen in calibration."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


_METHODS: Final = {
    Ranges.MINMAX: CalibrationMethod.MinMax,
    Ranges.ENTROPY: CalibrationMethod.Entropy,
    Ranges.PERCENTILE: CalibrationMethod.Percentile,
}


def quantize(
    model: Path,
    target: Path,
    *,
    calibration: Rows | None,
    ranges: Ranges = Ranges.MINMAX,
    per_channel: bool = False,
    keep: Sequence[str] = (),
) -> None:
    """Write the quantized `model` to `target`: static with `calibration` rows, dynamic without.

    `keep` names nodes that are left in floating point. Intermediate files lie beside `target`.

    Raises:
        QuantizationImpossible: if nothing in the model can be quantized, or the tool fails.
    """
    graph = _prepared(model, target.with_name("prepared.onnx"))
    _check_names(graph, keep)
    operators = {node.op_type for node in graph.graph.node}
    if operators & _QUANTIZED:
        raise QuantizationImpossible(f"{model.name} is quantized already")
    try:
        with _quiet():
            if calibration is not None:
                quantize_static(
                    graph,
                    target,
                    _Reader(calibration, graph),
                    quant_format=QuantFormat.QDQ,
                    per_channel=per_channel,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=list(keep),
                    calibrate_method=_METHODS[ranges],
                )
            else:
                quantize_dynamic(
                    graph,
                    target,
                    per_channel=per_channel,
                    # The CPU's ConvInteger takes unsigned weights only.
                    weight_type=QuantType.QUInt8 if "Conv" in operators else QuantType.QInt8,
                    nodes_to_exclude=list(keep),
                )
    except OSError:
        # A full disk is not the model's fault.
        raise
    except Exception as error:
        # The tool raises many types of its own, and its messages may quote calibration values.
        raise QuantizationImpossible(
            f"ONNX Runtime's quantizer cannot do {model.name} ({type(error).__name__}); its operators "
            f"are {', '.join(sorted(operators))}. Leave nodes in floating point with --keep, or try "
            f"{'--dynamic' if calibration is not None else 'static quantization'}"
        ) from error
    quantized = onnx.load(target)
    if not {node.op_type for node in quantized.graph.node} & _QUANTIZED:
        raise QuantizationImpossible(
            f"nothing in {model.name} can be quantized: its operators are "
            f"{', '.join(sorted(operators))}"
        )


def _prepared(model: Path, path: Path) -> onnx.ModelProto:
    """Return the model with its shapes inferred and its constants folded, as quantizing needs it."""
    for symbolic in (True, False):
        try:
            with _quiet():
                quant_pre_process(model, path, skip_symbolic_shape=not symbolic)
            return onnx.load(path)
        except OSError:
            raise
        except Exception as error:
            # Symbolic inference knows fewer operators than ONNX's own.
            if not symbolic:
                raise QuantizationImpossible(
                    f"{model.name} cannot be prepared for quantization ({type(error).__name__})"
                ) from error
    message = "the second try returns or raises"
    raise AssertionError(message)


def _check_names(graph: onnx.ModelProto, keep: Sequence[str]) -> None:
    names = [node.name for node in graph.graph.node if node.name]
    unknown = [name for name in keep if name not in names]
    if unknown:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        raise QuantizationImpossible(
            f"the model has no node {unknown[0]}; once prepared it has {', '.join(names[:NAMES_SHOWN])}"
            f"{more}"
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the rows one at a time: calibration by histograms needs runs of one shape."""

    def __init__(self, rows: Rows, graph: onnx.ModelProto) -> None:
        first = graph.graph.input[0].type.tensor_type.shape.dim[0]
        self._step = first.dim_value or 1
        self._rows = rows
        self._starts: Iterator[int] = iter(range(0, len(rows), self._step))

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the next feed, or None after the last."""
        start = next(self._starts, None)
        if start is None:
            return None
        indices = np.arange(start, start + self._step) % len(self._rows)
        return {name: array[indices] for name, array in self._rows.inputs.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the tool's advice: it prints, warns, and logs to the root logger."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
