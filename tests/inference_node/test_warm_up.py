"""What the files of `model_warmup` hold: one sample, as Triton has it, or one for each row.

Seen to fail: with as many samples demanded as the batch has rows, and with text that is never read.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.repositories import lay_out, save, states
from support.served_models import serving

from inference_node import loading, warm_up
from inference_node.contract import Contract

SAMPLE = """
model_warmup [{ name: "w" batch_size: %d inputs {
    key: "x" value: { data_type: %s dims: [3] input_data_file: "x" } } }]
"""
FLOATS = "TYPE_FP32"
TEXT = "TYPE_STRING"


def text(*items, cut=0):
    data = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    return data[: len(data) - cut]


def floats(count):
    return np.arange(count, dtype="<f4").tobytes()


def text_model(path):
    """y = x, of text."""
    value = [helper.make_tensor_value_info(n, TensorProto.STRING, ["rows", 3]) for n in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    save(helper.make_graph([node], "same", value[:1], value[1:]), path)


@pytest.fixture
def warmed(tmp_path, monkeypatch):
    """Serve a model with a warm-up file; return what it was warmed up on, or why it does not serve."""

    async def serve(kind, rows, data):
        folder = tmp_path / "m"
        if kind == TEXT:
            text_model(folder / "1/model.onnx")
        else:
            lay_out(tmp_path)
        (folder / "config.pbtxt").write_text(SAMPLE % (rows, kind))
        (folder / "warmup").mkdir()
        (folder / "warmup/x").write_bytes(data)
        seen = []

        def watching(warmup, session, contract: Contract, names):
            run = session.run
            session.run = lambda feed, names: seen.append(feed["x"].tolist()) or run(feed, names)
            warm_up.warm_up(warmup, session, contract, names)
            session.run = run

        monkeypatch.setattr(loading, "warm_up", watching)
        async with serving(tmp_path) as node:
            state = states(node)["m", "1"]
            return seen[0] if state == "READY" else state

    return serve


@pytest.mark.parametrize(
    ("rows", "count", "seen"),
    [
        (1, 3, [[0, 1, 2]]),
        (3, 3, [[0, 1, 2]] * 3),
        (2, 6, [[0, 1, 2], [3, 4, 5]]),
        # Triton takes what it needs off the beginning of a file that is longer.
        (2, 5, [[0, 1, 2]] * 2),
        (2, 100, [[0, 1, 2], [3, 4, 5]]),
    ],
)
async def test_a_file_holds_one_sample_for_all_rows_or_one_for_each(warmed, rows, count, seen):
    assert await warmed(FLOATS, rows, floats(count)) == seen


@pytest.mark.parametrize(
    ("rows", "items", "seen"),
    [
        (1, (b"a", b"", b"ccc"), [["a", "", "ccc"]]),
        (2, (b"a", b"", b"ccc"), [["a", "", "ccc"]] * 2),
        (2, (b"a", b"b", b"c", b"d", b"e", b"f"), [["a", "b", "c"], ["d", "e", "f"]]),
    ],
)
async def test_text_stands_behind_its_length(warmed, rows, items, seen):
    assert await warmed(TEXT, rows, text(*items)) == seen


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (FLOATS, floats(2)),
        (FLOATS, floats(3)[:-1]),
        (FLOATS, b""),
        (TEXT, text(b"a", b"b")),
        (TEXT, text(b"a", b"b", b"c", b"d")),
        (TEXT, text(b"a", b"b", b"cc", cut=1)),
        (TEXT, b"no lengths here"),
        (TEXT, b""),
    ],
)
async def test_a_file_that_does_not_fill_its_dims_is_refused(warmed, kind, data):
    assert await warmed(kind, 2, data) == "config.pbtxt: a model_warmup file does not fill its dims"


async def test_a_file_of_text_of_more_than_a_gibibyte_is_refused_unread(warmed, monkeypatch):
    monkeypatch.setattr(warm_up, "SAMPLE_LIMIT_BYTES", 100)
    reason = "config.pbtxt: model_warmup is larger than 1 GiB"
    assert await warmed(TEXT, 2, text(b"a" * 40, b"b" * 40, b"c" * 40)) == reason
