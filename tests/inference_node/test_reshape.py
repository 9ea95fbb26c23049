"""`reshape` of config.pbtxt: a request brings `dims`, and the model takes another shape of them.

Seen to fail: with requests, answers or warm-up samples not reshaped; with wildcards in reverse; with
counts that are not compared, or only as a whole; with trims left on the model's axes; and with scalars
held to their own shape.
"""

import asyncio

import numpy as np
import pytest
from onnx import helper, numpy_helper
from support.served_models import ask, reason, serving, write_model

from inference_node import ExecutionFailed, InputInvalid, RequestedOutput
from inference_node.protobuf_extensions import model_config_message

DENSENET = """
platform: "onnxruntime_onnx"
max_batch_size: 0
input [{ name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 2, 2]
         reshape { shape: [1, 3, 2, 2] } }]
output [{ name: "y" data_type: TYPE_FP32 dims: [3] reshape { shape: [1, 3, 1, 1] }
          label_filename: "labels.txt" }]
"""


def densenet(root, config=DENSENET):
    """Write the mean of each channel, float32 [1, 3, 2, 2] to [1, 3, 1, 1], as quick starts have it."""
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    folder = write_model(root, [node], {"x": [1, 3, 2, 2]}, {"y": [1, 3, 1, 1]}, config)
    (folder / "labels.txt").write_text("cat\ndog\nbird\n")


def doubling(root, own, config):
    """Write y = x + x, of the model's own shape."""
    return write_model(
        root, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": own}, {"y": own}, config
    )


def both(dims, reshape, batch=0, more=""):
    """Return a configuration with these `dims` and `reshape` of input x and output y."""
    tensor = f"data_type: TYPE_FP32 dims: {dims} {reshape}"
    return (
        f'max_batch_size: {batch} input [{{ name: "x" {tensor} }}] '
        f'output [{{ name: "y" {tensor} }}] {more}'
    )


def shape(*sizes):
    return f"reshape {{ shape: {list(sizes)} }}"


PAD = 'parameters { key: "ragged" value: { string_value: "pad" } }'


async def test_a_quick_starts_model_is_served_by_the_shapes_of_its_configuration(tmp_path):
    densenet(tmp_path)
    async with serving(tmp_path) as node:
        metadata = node.metadata("m", None)
        assert (metadata.inputs[0].shape, metadata.outputs[0].shape) == ((3, 2, 2), (3,))
        x = np.arange(12).reshape(3, 2, 2)
        assert (await ask(node, x=x))["y"].tolist() == [1.5, 5.5, 9.5]
        wanted = RequestedOutput(name="y", parameters={"classification": 2})
        classes = (await ask(node, [wanted], x=x))["y"]
        assert classes.tolist() == [b"9.500000:2:bird", b"5.500000:1:dog"]
        with pytest.raises(InputInvalid, match=r"must have the shape \[3, 2, 2\]"):
            await ask(node, x=x[None])
        message = model_config_message(node.config("m"))
        assert list(message.config.input[0].reshape.shape) == [1, 3, 2, 2]


async def test_wildcards_keep_their_order_and_requests_run_together(tmp_path):
    doubling(tmp_path, ["n", 2, "a", 1, "b"], both([2, -1, -1], shape(2, -1, 1, -1), 8))
    async with serving(tmp_path) as node:
        assert node.metadata("m", None).inputs[0].shape == (-1, 2, -1, -1)
        given = [np.arange(n * 30).reshape(n, 2, 3, 5) for n in (1, 2, 1)]
        answers = await asyncio.gather(*(ask(node, x=x) for x in given))
        for x, answer in zip(given, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], x * 2)
        assert node.statistics("m")[0].execution_count == 1
        with pytest.raises(InputInvalid, match="at most 8 rows"):
            await ask(node, x=np.ones((9, 2, 1, 1)))


async def test_wildcards_that_change_places_with_ones_keep_their_sizes(tmp_path):
    transposed = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    config = (
        'input [{ name: "x" data_type: TYPE_FP32 dims: [-1, 1, -1] reshape { shape: [-1, -1] } }] '
        'output [{ name: "y" data_type: TYPE_FP32 dims: [1, -1, -1] reshape { shape: [-1, -1] } }]'
    )
    write_model(tmp_path, [transposed], {"x": ["a", "b"]}, {"y": ["b", "a"]}, config)
    async with serving(tmp_path) as node:
        x = np.arange(6).reshape(2, 1, 3)
        np.testing.assert_array_equal((await ask(node, x=x))["y"], x[:, 0].T[None])


async def test_an_empty_shape_leaves_the_rows(tmp_path):
    doubling(tmp_path, ["n"], both([1], "reshape { }", 8))
    async with serving(tmp_path) as node:
        assert node.metadata("m", None).outputs[0].shape == (-1, 1)
        answers = await asyncio.gather(*(ask(node, x=[[n], [n]]) for n in (1, 2)))
        assert [answer["y"].tolist() for answer in answers] == [[[2], [2]], [[4], [4]]]


@pytest.mark.parametrize("reshape", ["", "reshape { }", shape(1)])
async def test_a_models_scalar_is_a_tensor_of_one(tmp_path, reshape):
    doubling(tmp_path, [], both([1], reshape))
    async with serving(tmp_path) as node:
        assert node.metadata("m", None).inputs[0].shape == (1,)
        assert (await ask(node, x=[3]))["y"].tolist() == [6]


async def test_padding_is_cut_from_where_it_was_put(tmp_path):
    doubling(tmp_path, ["n", 2, 2, "length"], both([4, -1], shape(2, 2, -1), 8, PAD))
    async with serving(tmp_path) as node:
        given = [np.arange(4.0 * n).reshape(1, 4, n) for n in (4, 7, 5)]
        answers = await asyncio.gather(*(ask(node, x=x) for x in given))
        for x, answer in zip(given, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], x * 2)
        assert node.statistics("m")[0].execution_count == 1


async def test_a_distribution_is_that_of_the_shape_that_is_served(tmp_path):
    declared = (
        'parameters { key: "distribution.g" value { string_value: "normal loc=y[0] scale=y[1]" } }'
    )
    doubling(tmp_path, ["n", 2, 1], both([2], shape(2, 1), 8, declared))
    async with serving(tmp_path) as node:
        wanted = RequestedOutput(name="g.mean", parameters={"moments": "mean"})
        assert (await ask(node, [wanted], x=[[5, 1], [6, 1]]))["g.mean"].tolist() == [10, 12]


async def test_a_warm_up_sample_has_the_shape_that_requests_have(tmp_path):
    sample = 'inputs { key: "x" value: { data_type: TYPE_FP32 dims: [3, 2, 2] zero_data: true } }'
    densenet(tmp_path, DENSENET + f'model_warmup [{{ name: "w" {sample} }}]')
    assert await reason(tmp_path) == ""
    densenet(tmp_path, DENSENET + f'model_warmup [{{ name: "w" {sample.replace("3, 2", "1, 3, 2")} }}]')
    assert "model_warmup: the input x must have the shape [3, 2, 2]" in await reason(tmp_path)


@pytest.mark.parametrize(
    ("dims", "reshape", "batch", "says"),
    [
        ([4], shape(1, 3), 0, "reshape of x is [1, 3] and its dims [4]"),
        ([-1, 6], shape(6), 0, "reshape of x is [6] and its dims [-1, 6]"),
        ([2, -1, 6], shape(6, -1, 2), 0, "the same number of elements"),
        ([2], "reshape { }", 8, "the same number of elements"),
        ([0, 2], shape(2, 0), 0, "dims of x must be 1 or more, or -1"),
        ([2], shape(-2), 0, "reshape of x must be 1 or more, or -1"),
        ([], shape(2), 0, "reshape of x needs dims"),
        ([4], shape(4), 0, "reshape of x makes the shape [4], the model's is [-1, 2, 2]"),
        ([4], shape(4), 8, "reshape of x makes the shape [-1, 4], the model's is [-1, 2, 2]"),
    ],
)
async def test_a_reshape_that_cannot_be_is_refused(tmp_path, dims, reshape, batch, says):
    doubling(tmp_path, ["n", 2, 2], both(dims, reshape, batch))
    assert says in await reason(tmp_path)


@pytest.mark.parametrize("dims", [[2], [1, 2]])
async def test_a_scalar_has_no_other_dims_than_ones(tmp_path, dims):
    doubling(tmp_path, [], both(dims, ""))
    assert f"dims of x make the shape {dims}, the model's is []" in await reason(tmp_path)


async def test_an_output_of_another_shape_than_configured_is_an_error_and_not_cut_up(tmp_path):
    config = (
        'input [{ name: "x" data_type: TYPE_FP32 dims: [-1, -1] }] '
        'output [{ name: "y" data_type: TYPE_FP32 dims: [1, 6] reshape { shape: [3, 2] } }]'
    )
    doubling(tmp_path, [None, None], config)
    async with serving(tmp_path) as node:
        assert (await ask(node, x=np.ones((3, 2))))["y"].shape == (1, 6)
        with pytest.raises(ExecutionFailed):
            await ask(node, x=np.ones((2, 3)))


async def test_a_model_without_it_runs_as_it_did(tmp_path):
    constants = [numpy_helper.from_array(np.float32(1), "one")]
    add = helper.make_node("Add", ["x", "one"], ["y"])
    write_model(tmp_path, [add], {"x": ["n", 2]}, {"y": ["n", 2]}, both([2], "", 8), constants)
    async with serving(tmp_path) as node:
        (model,) = node.loaded()
        assert model.session._run == model.session._session.run
