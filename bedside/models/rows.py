"""Rows to measure a model on: an `.npz` with an array for each input, and perhaps labels.

The rows of a model with one input may also be an `.npy`, which is that input's array.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
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

    def finite(self) -> "Rows":
        """Return the rows whose inputs hold neither NaN nor an infinity: ranges are measured on those.

        Raises:
            RowsInvalid: if there is none.
        """
        keep = np.ones(len(self), np.bool_)
        for array in self.inputs.values():
            if DTYPES["BYTES"] != array.dtype:
                keep &= np.isfinite(array).reshape(len(array), -1).all(1)
        if not keep.any():
            raise RowsInvalid(
                "none of the rows to calibrate on is finite: each holds NaN or an infinity"
            )
        return self if keep.all() else self.take(np.flatnonzero(keep))

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
    """Return the rows in the `.npz` or `.npy` at `path`, as the model takes them.

    Raises:
        RowsInvalid: naming the array, if they do not fit `inputs`; nothing in them is quoted.
    """
    if not inputs:
        raise RowsInvalid("the model takes no inputs, so no rows can be measured on it")
    arrays, sha256 = read_arrays(path, [value.name for value in inputs])
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
    if len(counts) != 1 or (own is not None and own.shape not in _flat(counts)):
        raise RowsInvalid(f"the arrays in {path} have different numbers of rows")
    if counts == {0}:
        raise RowsInvalid(f"{path} has no rows")
    if own is not None and own.dtype.kind not in "iufb":
        raise RowsInvalid(f"{labels} must be numbers")
    if own is not None and not np.isfinite(own).all():
        without = int((~np.isfinite(own)).sum())
        raise RowsInvalid(f"{labels} must be finite numbers: leave out the {without} rows without one")
    return Rows(inputs=found, labels=None if own is None else own.reshape(-1), sha256=sha256)


def read_arrays(path: Path, names: Sequence[str]) -> tuple[dict[str, Array], str]:
    """Return all arrays in the `.npz` at `path`, by name, and the file's SHA-256.

    An `.npy` is taken for the array `names[0]` if no other is expected.

    Raises:
        RowsInvalid: if it is no such file, is cut short, or holds anything but plain arrays.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            # Pickles run code: an array of objects is refused.
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                with loaded:
                    arrays = {name: loaded[name] for name in loaded.files}
            else:
                arrays = {names[0]: loaded}
        except (
            *(ValueError, KeyError, EOFError, AttributeError, OverflowError, RuntimeError),
            *(zipfile.BadZipFile, zlib.error, struct.error),
        ) as error:
            raise _no_arrays(path) from error
        except MemoryError as error:
            raise RowsInvalid(f"{path} holds more than there is memory for") from error
    # What is in an archive and is no array, numpy returns as bytes.
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise _no_arrays(path)
    if isinstance(loaded, np.ndarray) and len(names) > 1:
        raise RowsInvalid(
            f"{path} is a single array, and the model takes {', '.join(names)}: write a .npz file with "
            "an array for each"
        )
    return arrays, sha256


def _no_arrays(path: Path) -> RowsInvalid:
    return RowsInvalid(
        f"{path} is not a whole .npz or .npy file of plain arrays, as numpy.savez or numpy.save "
        "writes one"
    )


def _flat(counts: set[int]) -> list[tuple[int, ...]]:
    (count,) = counts
    return [(count,), (count, 1)]


def _fitted(array: Array, value: TensorMetadata) -> Array:
    dtype = DTYPES[value.datatype]
    if not value.shape:
        raise RowsInvalid(f"the model's input {value.name} has no dimension for rows")
    if array.ndim != len(value.shape) or any(
        own not in (-1, other) for own, other in zip(value.shape[1:], array.shape[1:], strict=True)
    ):
        raise RowsInvalid(
            f"the array {value.name} must have the shape {shown(value.shape)}, and has "
            f"{shown(array.shape)}"
        )
    if dtype.kind == "O":
        if array.dtype.kind != "U":
            raise RowsInvalid(f"the array {value.name} must be text")
        return array.astype(object)
    if array.dtype != dtype and not (array.dtype.kind in "iuf" and dtype.kind in "fV"):
        raise RowsInvalid(f"the array {value.name} must be {value.datatype}")
    # A number too large for the model's type is infinite in it, which is not worth a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def shown(shape: Sequence[int]) -> str:
    """Return a shape as messages write it; -1 is any size."""
    return f"[{', '.join('any' if size == -1 else str(size) for size in shape)}]"
