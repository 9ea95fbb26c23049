"""Bodies that are nearly inference requests: what hypothesis sends to whatever speaks that protocol."""

import json
import struct

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from inference_node.oip import DTYPES
from support.canaries import TAG, Planter

VALUES = [7391.1836, 2846.7193, 5518.3921]
"""A row of three, of digits enough to be looked for in what is written."""

WORDS = st.integers(0, 2**32).map(lambda number: f"{TAG}{number:x}")
"""Words that begin with what is looked for."""

PARAMETERS = st.dictionaries(
    st.sampled_from(["steps", "steps", "priority", "timeout", "quantiles", "intervals", "moments"])
    | WORDS,
    st.integers(-1, 4) | st.sampled_from([True, None, 1e300, 2**64, [], {}, "y"]) | WORDS,
    max_size=3,
)

NAMES = st.sampled_from(["x", "y", "", "\N{SNOWMAN}"]) | st.text(max_size=5)
NUMBERS = (
    st.integers(-3, 5)
    | st.integers()
    | st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), True, None, 1.5, "2"])
)
SHAPES = st.lists(NUMBERS, max_size=4) | st.lists(st.just(1), min_size=16, max_size=18)
LEAVES = NUMBERS | st.floats() | st.text(max_size=3)
DATA = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def live(examples: int) -> settings:
    """Return hypothesis' settings for a running server, which takes what time it takes."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@st.composite
def tensors(draw, names=NAMES, data=DATA):
    tensor = {
        "name": draw(names),
        "shape": draw(SHAPES),
        "datatype": draw(st.sampled_from([*DTYPES, "FP33", ""])),
    }
    how = draw(st.sampled_from(["data", "binary", "both", "neither"]))
    if how in ("data", "both"):
        tensor["data"] = draw(data)
    if how in ("binary", "both"):
        tensor["parameters"] = {"binary_data_size": draw(NUMBERS)}
    return tensor


@st.composite
def bodies(draw, names=NAMES, data=DATA, parameters=None):
    """Nearly a request: right in form, and wrong in any of its numbers, or cut, or with more behind.

    Return the body, and the length that its head says its JSON has, or None.
    """
    outputs = draw(st.none() | st.lists(st.fixed_dictionaries({"name": names}), max_size=2))
    head = {"inputs": draw(st.lists(tensors(names, data), max_size=3))}
    if outputs is not None:
        head["outputs"] = outputs
    if parameters is not None:
        head["parameters"] = draw(parameters)
    encoded = json.dumps(head).encode(errors="surrogatepass")
    tail = draw(st.binary(max_size=40) | st.lists(st.integers(0, 9), max_size=6).map(_texts))
    body = encoded + tail
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    length = draw(st.just(len(encoded)) | st.integers(0, len(body) + 3) | st.none())
    return body, length


def _texts(lengths):
    """Return BYTES elements whose lengths are now and then not those that they state."""
    return b"".join(
        length.to_bytes(4, "little") + b"a" * (length if length < 7 else 1) for length in lengths
    )


@st.composite
def whole(draw):
    """Return a body that a model takes, but for what it may say besides, and its length of JSON."""
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
    head = {"id": draw(WORDS), "inputs": [tensor], "parameters": draw(PARAMETERS)}
    outputs = draw(st.none() | st.lists(st.sampled_from(["y", "y", "y", "z"]) | WORDS, max_size=2))
    if outputs is not None:
        binary = {"binary_data": draw(st.booleans()), "classification": draw(st.integers(0, 3))}
        head["outputs"] = [{"name": name, "parameters": binary} for name in outputs]
    if draw(st.booleans()):
        tensor["parameters"] = {"binary_data_size": 12}
        encoded = json.dumps(head).encode()
        return encoded + struct.pack("<3f", *VALUES), len(encoded)
    tensor["data"] = VALUES
    return json.dumps(head).encode(), None


@st.composite
def mutated(draw):
    """Return such a body with some bytes that are others."""
    body, length = draw(whole())
    changed = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed), length


def planted():
    """Return what looks for all of these words and values."""
    plant = Planter()
    plant.canaries.add_values(np.array(VALUES, np.float32))
    return plant
