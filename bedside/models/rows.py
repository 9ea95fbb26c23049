"""Rows to measure a model on: an `.npz` with an array for each input, and perhaps labels."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from bedside.errors import BedsideError
from inference_node import TensorMetadata
from inference_node.oip import DTYPES

Array = npt.NDArray[Any]

LABELS: Final = "labels"
CALIBRATION_ROWS_MAX: Final = 512


class RowsInvalid(BedsideError):
    """Raised when a file of rows cannot be read or does not fit the model."""


class Rows(Struct, frozen=True, kw_only=True):
    """Arrays [n, ...] by input, labels [n] or None, and the SHA-256 of the file that they are from."""

    inputs: Mapping[str, Array]
    labels: Array | None
    sha256: str

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, indices: Array) -> "Rows":
        """Return the rows at `indices`."""
        return Rows(
            inputs={name: array[indices] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[indices],
            sha256=self.sha256,
        )

    def halves(self) -> tuple["Rows", "Rows"]:
        """Return rows to calibrate on and the others, drawn at random but always the same.

        Raises:
            RowsInvalid: if there are too few to divide.
        """
        count = len(self)
        if count < 2:
            raise RowsInvalid("one row cannot be divided for calibration and measuring")
        order = np.random.default_rng(0).permutation(count)
        cut = min(count // 2, CALIBRATION_ROWS_MAX)
        return self.take(order[:cut]), self.take(np.sort(order[cut:]))


def read_rows(path: Path, inputs: tuple[TensorMetadata, ...], labels: str = LABELS) -> Rows:
    """Return the rows in the `.npz` at `path`, as the model takes them.

    Raises:
        RowsInvalid: naming the array, if they do not fit `inputs`; nothing in them is quoted.
    """
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        # Pickles run code: an array of objects is refused.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise RowsInvalid(
            f"{path} is not a .npz file of plain arrays, as numpy.savez writes one"
        ) from error
    found: dict[str, Array] = {}
    for value in inputs:
        if value.name not in arrays:
            raise RowsInvalid(f"{path} has no array {value.name}, which the model takes")
        found[value.name] = _fitted(arrays.pop(value.name), value)
    own = arrays.pop(labels, None)
    if arrays:
        raise RowsInvalid(
            f"{path} has {len(arrays)} arrays that are neither an input ({', '.join(found)}) nor "
            f"{labels}"
        )
    if own is None and labels != LABELS:
        raise RowsInvalid(f"{path} has no array {labels}")
    counts = {len(array) for array in found.values()}
    if len(counts) != 1 or 0 in counts or (own is not None and own.shape not in _flat(counts)):
        raise RowsInvalid(f"the arrays in {path} have different numbers of rows, or none")
    if own is not None and own.dtype.kind not in "iufb":
        raise RowsInvalid(f"{labels} must be numbers")
    return Rows(inputs=found, labels=None if own is None else own.reshape(-1), sha256=sha256)


def _flat(counts: set[int]) -> list[tuple[int, ...]]:
    (count,) = counts
    return [(count,), (count, 1)]


def _fitted(array: Array, value: TensorMetadata) -> Array:
    dtype = DTYPES[value.datatype]
    if (
        array.ndim != len(value.shape)
        or not array.ndim
        or any(
            own not in (-1, other) for own, other in zip(value.shape[1:], array.shape[1:], strict=True)
        )
    ):
        shape = ", ".join("any" if size == -1 else str(size) for size in value.shape)
        raise RowsInvalid(f"the array {value.name} must have the shape [{shape}]")
    if dtype.kind == "O":
        if array.dtype.kind != "U":
            raise RowsInvalid(f"the array {value.name} must be text")
        return array.astype(object)
    if array.dtype != dtype and not (array.dtype.kind in "iuf" and dtype.kind in "fV"):
        raise RowsInvalid(f"the array {value.name} must be {value.datatype}")
    return array.astype(dtype)
