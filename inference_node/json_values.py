"""Tensor values as JSON lists, both ways. Errors name a rule and a position, never a value.

JSON has no word for numbers that are not finite. `null` is NaN, as MLServer has it. The bare words that
Triton takes, and Python's json writes (`NaN`, `Infinity`, `-Infinity`), are read, and so are strings of
the same words, which protobuf's JSON has for them. An infinity is never written: as `null` it would
come out as NaN.
"""

import math
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

_WORDS: Final = (str, type(None))
_NAN: Final = b"NaN"
_INFINITY: Final = b"Infinity"
_NOT_FINITE: Final[Mapping[str | None, float]] = {
    None: math.nan,
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}


def spelled_out(text: bytes) -> bytes | None:
    """Return `text`, which is no JSON, with strings in place of the bare words; None if it has none.

    What stands in strings stays as it is.
    """
    if _NAN not in text and _INFINITY not in text:
        return None
    # Of the same length, so that quotation marks are found where they stand.
    unescaped = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    parts = []
    at = 0
    for number, found in enumerate(unescaped.split(b'"')):
        part = text[at : at + len(found)]
        at += len(found) + 1
        if number % 2 == 0 and (_NAN in part or _INFINITY in part):
            part = part.replace(_NAN, b'"NaN"').replace(_INFINITY, b'"Infinity"')
            part = part.replace(b'-"Infinity"', b'"-Infinity"')
        parts.append(part)
    return b'"'.join(parts)


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
    # One that is infinite now and was not is a number too large for the datatype.
    if dtype.kind in "fV" and any(
        math.isfinite(values[index]) for index in np.flatnonzero(~np.isfinite(array))
    ):
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
    found = set(map(type, level))
    if float in kinds and not found.isdisjoint(_WORDS):
        level = [_NOT_FINITE.get(leaf, leaf) if type(leaf) in _WORDS else leaf for leaf in level]
        found = set(map(type, level))
    if not found.issubset(kinds):
        raise InputInvalid(f"tensor {position}: a value is not of the tensor's datatype")
    return level


def check_sayable(array: Array) -> None:
    """See that JSON has words for all values of a tensor.

    Raises:
        InputInvalid: if a number is infinite, or BYTES are no text.
    """
    if array.dtype.kind in "fV":
        if np.count_nonzero(np.isinf(array)):
            raise InputInvalid("an output is infinite, which JSON cannot say; ask for it in binary")
    elif array.dtype.kind == "O":
        to_json(array)


def to_json(array: Array) -> list[Any]:
    """Return a tensor's values as JSON takes them, row by row; NaN is written as `null`.

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
