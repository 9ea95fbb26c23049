"""How config.pbtxt is read, and that each reason not to serve it names the field or the place.

Seen to fail: with reasons that name neither, with a byte order mark refused, with 0 threads refused or
taken for the node's own number, and with a folder in place of the model passed over.
"""

import pytest
from onnx import helper
from support.served_models import ask, reason, serving, write_model

from inference_node import ModelNotReady
from inference_node.batch import Ragged
from inference_node.model_config import read_config

NAMED = {
    'output [{ name: "y" label_filename: "a/labels.txt" }]': "label_filename of y must be a name",
    'default_model_filename: "../other.onnx"': "default_model_filename must be a name",
    'model_warmup [{ inputs { key: "x" value: { input_data_file: "a/b" } } }]': (
        "model_warmup.inputs.input_data_file of x must be a name"
    ),
    "instance_group [{ kind: KIND_CPU }, { kind: KIND_GPU }]": "instance_group.kind must be the same",
    "instance_group [{ count: 40 }, { count: 40 }]": "instance_group.count must be 1 to 64 in all",
    "instance_group [{ count: -1 }, { count: 2 }]": "instance_group.count must be 1 to 64 in all",
    'parameters { key: "intra_op_thread_count" value { string_value: "%s" } }' % ("9" * 5000): (
        "parameters.intra_op_thread_count must be 0 to 256"
    ),
    'parameters { key: "intra_op_thread_count" value { string_value: "257" } }': (
        "parameters.intra_op_thread_count must be 0 to 256"
    ),
}
NO_TEXT = "the file is not Triton's ModelConfig in protobuf text format"


def folder(root, config):
    (root / "m").mkdir()
    (root / "m/config.pbtxt").write_bytes(config if isinstance(config, bytes) else config.encode())
    return root / "m"


@pytest.mark.parametrize("config", NAMED)
def test_a_reason_names_the_field(tmp_path, config):
    with pytest.raises(ModelNotReady) as refused:
        read_config(folder(tmp_path, config))
    assert str(refused.value).startswith(f"config.pbtxt: {NAMED[config]}")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("max_batch_size: secret", f"{NO_TEXT}: line 1, column 17"),
        ('name: "m"\n  secret { }', f"{NO_TEXT}: line 2, column 3"),
        (b'name: "m"\nplatform: "\xff"', "the file is not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_place_and_not_quoted(tmp_path, config, says):
    with pytest.raises(ModelNotReady) as refused:
        read_config(folder(tmp_path, config))
    assert str(refused.value) == f"config.pbtxt: {says}"


def test_a_byte_order_mark_is_passed_over(tmp_path):
    assert read_config(folder(tmp_path, b"\xef\xbb\xbfmax_batch_size: 4")).max_batch_size == 4


async def test_a_thread_count_of_0_is_onnx_runtimes_own(tmp_path):
    config = 'parameters { key: "intra_op_thread_count" value { string_value: "0" } }'
    negate = helper.make_node("Neg", ["x"], ["y"])
    write_model(tmp_path, [negate], {"x": ["n", 2]}, {"y": ["n", 2]}, config)
    async with serving(tmp_path, intra_op_threads=3) as node:
        (model,) = node.loaded()
        assert model.session._session.get_session_options().intra_op_num_threads == 0
        assert (await ask(node, x=[[1, 2]]))["y"].tolist() == [[-1, -2]]


@pytest.mark.parametrize("config", ["", 'name: "m"'])
async def test_a_model_in_a_folder_of_several_files_is_told_so(tmp_path, config):
    folder = write_model(tmp_path, [], {}, {}, config)
    (folder / "1/model.onnx").unlink()
    (folder / "1/model.onnx").mkdir()
    (folder / "1/model.onnx/model.onnx").write_bytes(b"")
    assert "default_model_filename: model.onnx is a folder" in await reason(tmp_path)


RAGGED = (
    'max_batch_size: 8 input [{ name: "x" data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true }] '
)


async def test_ragged_requests_that_would_lie_end_to_end_are_refused_by_name(tmp_path):
    write_model(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], {"x": [None]}, {"y": [None]}, RAGGED)
    said = await reason(tmp_path)
    assert said.startswith("config.pbtxt: allow_ragged_batch of x joins requests end to end")
    assert "parameters.ragged" in said


async def test_ragged_requests_that_keep_their_rows_are_served(tmp_path):
    negate = helper.make_node("Neg", ["x"], ["y"])
    write_model(tmp_path, [negate], {"x": ["n", "l"]}, {"y": ["n", "l"]}, RAGGED)
    async with serving(tmp_path) as node:
        assert node.loaded()[0].config.ragged is Ragged.SEPARATE
        assert (await ask(node, x=[[1, 2]]))["y"].tolist() == [[-1, -2]]
