"""Runs the samples that a model's `model_warmup` names, before it is ready."""

import contextlib
import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference_node.batch import Feed
from inference_node.contract import Contract
from inference_node.errors import ExecutionFailed, InputInvalid, ModelNotReady
from inference_node.model_config import Warmup, WarmupInput
from inference_node.oip import DTYPES, Array, InferRequest, Tensor
from inference_node.runtime import Session
from inference_node.tensors import from_binary
from inference_node.validation import feed_of

SAMPLE_LIMIT_BYTES: Final = 1 << 30


def warm_up(warmup: Warmup, session: Session, contract: Contract, names: tuple[str, ...]) -> None:
    """Run one sample as often as it says, for the outputs `names`.

    Raises:
        ModelNotReady: with the reason, if it does not fit the model or cannot be run.
    """
    rows = max(warmup.rows, 1) if contract.batches else None
    tensors = []
    for name, sample in warmup.inputs.items():
        array = _array(sample, rows)
        tensors.append(Tensor(name=name, datatype=sample.datatype, shape=array.shape, array=array))
    try:
        request = InferRequest(inputs=tensors)
        feed: Feed = feed_of(contract.inputs, request, batches=contract.batches)[0]
    except InputInvalid as error:
        raise ModelNotReady(f"config.pbtxt: model_warmup: {error}") from error
    try:
        for _ in range(warmup.count):
            session.run(feed, names)
    except ExecutionFailed as error:
        raise ModelNotReady("broken: the model cannot be run on its model_warmup") from error


def _array(sample: WarmupInput, rows: int | None) -> Array:
    """Return a sample of the shape [rows, *dims], or of its dims where there are no rows."""
    dtype = DTYPES.get(sample.datatype)
    if dtype is None or any(size < 0 for size in sample.dims):
        raise ModelNotReady("config.pbtxt: model_warmup needs a data_type and dims of known sizes")
    shape = sample.dims if rows is None else (rows, *sample.dims)
    if math.prod(shape) * dtype.itemsize > SAMPLE_LIMIT_BYTES:
        raise _too_large()
    if sample.file is not None:
        return _from_file(sample.file, dtype, sample.dims, shape)
    if dtype.kind == "O":
        return np.full(shape, b"", dtype=dtype)
    if sample.random:
        random = np.random.default_rng(0)
        values = random.random(shape) if dtype.kind in "fV" else random.integers(0, 2, shape)
        return values.astype(dtype)
    return np.zeros(shape, dtype=dtype)


def _from_file(
    path: Path, dtype: np.dtype[Any], dims: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """Return what a file holds: one sample, which Triton repeats for each row, or one for each."""
    one, all_rows = math.prod(dims), math.prod(shape)
    try:
        if dtype.kind == "O":
            if path.stat().st_size > SAMPLE_LIMIT_BYTES:
                raise _too_large()
            values = _texts(path.read_bytes(), one, all_rows)
        else:
            values = np.fromfile(path, dtype=dtype, count=all_rows)
    except OSError as error:
        raise ModelNotReady("config.pbtxt: a model_warmup file cannot be read") from error
    if len(values) < one:
        raise _unfilled()
    if len(values) < all_rows:
        return np.broadcast_to(values[:one].reshape(dims), shape).copy()
    return values.reshape(shape)


def _texts(data: bytes, *counts: int) -> Array:
    """Return the elements in `data`, each behind its length, of which there is one of `counts`."""
    for count in counts:
        with contextlib.suppress(InputInvalid):
            return from_binary(memoryview(data), "BYTES", count, 0)
    raise _unfilled()


def _unfilled() -> ModelNotReady:
    return ModelNotReady("config.pbtxt: a model_warmup file does not fill its dims")


def _too_large() -> ModelNotReady:
    return ModelNotReady("config.pbtxt: model_warmup is larger than 1 GiB")
