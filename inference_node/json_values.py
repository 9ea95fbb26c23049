"""Tensor values as JSON lists, both ways. Errors name a rule and a position, never a value."""

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from inference_node.errors import InputInvalid
from inference_node.oip import Array
from inference_node.tensors import DIMENSIONS_MAX, as_bytes, unfit, wrong_count
from inference_node.wire import MALFORMED

_PACKED: Final = {"FP16": ("e", "<f2"), "FP32": ("f", "<f4"), "FP64": ("d", "<f8")}

_floats = msgspec.json.Decoder(list[float])
_integers = msgspec.json.Decoder(list[int])
_booleans = msgspec.json.Decoder(list[bool])
_texts = msgspec.json.Decoder(list[str])
_anything = msgspec.json.Decoder(list[Any])

_DECODERS: Final[Mapping[str, tuple[msgspec.json.Decoder[Any], tuple[type, ...]]]] = {
    "f": (_floats, (int, float)),
    "V": (_floats, (int, float)),
    "i": (_integers, (int,)),
    "u": (_integers, (int,)),
    "b": (_booleans, (bool,)),
    "O": (_texts, (str,)),
}


def from_json(raw: msgspec.Raw, dtype: np.dtype[Any], elements: int, position: int) -> Array:
    """Return the values of a JSON list, flat or nested, as a flat array of `dtype`.

    Raises:
        InputInvalid: if they are too many or few, or do not fit the datatype.
    """
    decoder, kinds = _DECODERS[dtype.kind]
    try:
        values: list[Any] = decoder.decode(raw)
    except MALFORMED:
        values = _flattened(raw, kinds, position)
    if len(values) != elements:
        raise wrong_count(position, elements)
    if dtype.kind == "O":
        array = np.empty(elements, dtype=dtype)
        array[:] = [value.encode() for value in values]
        return array
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=dtype)
    except OverflowError as error:
        raise unfit(position) from error
    # JSON has no infinity: one that is there now was a number too large for the datatype.
    if dtype.kind in "fV" and not np.isfinite(array).all():
        raise unfit(position)
    return array


def from_floats(values: list[float], datatype: str, elements: int, position: int) -> Array:
    """Return decoded numbers as a flat array of `datatype`; raises as `from_json`."""
    if len(values) != elements:
        raise wrong_count(position, elements)
    code, dtype = _PACKED[datatype]
    try:
        # Three times as fast as numpy's own way from a list.
        packed = struct.pack(f"<{elements}{code}", *values)
    except OverflowError as error:
        raise unfit(position) from error
    return np.frombuffer(packed, dtype)


def _flattened(raw: msgspec.Raw, kinds: tuple[type, ...], position: int) -> list[Any]:
    """Return the leaves of nested lists, row by row; the protocol allows both forms."""
    try:
        level: list[Any] = _anything.decode(raw)
    except MALFORMED as error:
        raise InputInvalid(f"tensor {position}: data is not a list") from error
    for _ in range(DIMENSIONS_MAX):
        if not level or not isinstance(level[0], list):
            break
        if not all(isinstance(item, list) for item in level):
            raise InputInvalid(f"tensor {position}: data is nested unevenly")
        if len({len(item) for item in level}) > 1:
            raise InputInvalid(f"tensor {position}: data is nested unevenly")
        level = [leaf for item in level for leaf in item]
    if any(type(leaf) not in kinds for leaf in level):
        raise InputInvalid(f"tensor {position}: a value is not of the tensor's datatype")
    return level


def to_json(array: Array) -> list[Any]:
    """Return a tensor's values as JSON takes them, row by row.

    Raises:
        InputInvalid: if BYTES are no text.
    """
    if array.dtype.kind == "O":
        try:
            return [as_bytes(item).decode() for item in array.ravel()]
        except UnicodeDecodeError as error:
            raise InputInvalid("an output is not text; ask for it in binary") from error
    flat = array.ravel()
    if flat.dtype.kind == "V":
        return flat.astype(np.float32).tolist()
    return flat.tolist()
