"""Bodies that are nearly inference requests: what hypothesis sends to whatever speaks that protocol."""

import json

from hypothesis import strategies as st

from inference_node.oip import DTYPES

NAMES = st.sampled_from(["x", "y", "", "\N{SNOWMAN}"]) | st.text(max_size=5)
NUMBERS = (
    st.integers(-3, 5)
    | st.integers()
    | st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), True, None, 1.5, "2"])
)
SHAPES = st.lists(NUMBERS, max_size=4) | st.lists(st.just(1), min_size=16, max_size=18)
LEAVES = NUMBERS | st.floats() | st.text(max_size=3)
DATA = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


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
