"""What a model takes and gives: its configuration held against its ONNX file.

Seen to fail: with rows compared, and none refused, whether or not a model batches; with a gateway that
compares them for its nodes; and with the names that inputs give their first dimensions passed over.
"""

import asyncio

import numpy as np
import pytest
from onnx import helper
from support.repositories import ask, serving, write_model

from inference_node import InputInvalid


def ranker(root, config=""):
    """scores [queries, documents] = q @ transpose(d)."""
    q, d = "queries", "documents"
    nodes = [
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("MatMul", ["q", "t"], ["scores"]),
    ]
    write_model(root, nodes, {"q": [q, 8], "d": [d, 8]}, {"scores": [q, d]}, config)


async def test_a_model_that_does_not_batch_takes_inputs_of_different_lengths(tmp_path):
    ranker(
        tmp_path,
        """
        max_batch_size: 0
        input [{ name: "q" data_type: TYPE_FP32 dims: [-1, 8] },
               { name: "d" data_type: TYPE_FP32 dims: [-1, 8] }]
        output [{ name: "scores" data_type: TYPE_FP32 dims: [-1, -1] }]
        """,
    )
    async with serving(tmp_path) as node:
        assert (await ask(node, q=np.ones((2, 8)), d=np.ones((5, 8))))["scores"].shape == (2, 5)
        assert (await ask(node, q=np.ones((2, 8)), d=np.ones((0, 8))))["scores"].shape == (2, 0)
        statistics = node.statistics("m")[0]
        assert (statistics.inference_count, statistics.execution_count) == (2, 2)
        assert [batch.batch_size for batch in statistics.batch_stats] == [1]


async def test_a_model_that_batches_takes_rows_and_as_many_of_each_input(tmp_path):
    ranker(
        tmp_path,
        """
        max_batch_size: 4
        input [{ name: "q" data_type: TYPE_FP32 dims: [8] },
               { name: "d" data_type: TYPE_FP32 dims: [8] }]
        output [{ name: "scores" data_type: TYPE_FP32 dims: [-1] }]
        """,
    )
    async with serving(tmp_path) as node:
        assert (await ask(node, q=np.ones((2, 8)), d=np.ones((2, 8))))["scores"].shape == (2, 2)
        with pytest.raises(InputInvalid, match="different numbers of rows"):
            await ask(node, q=np.ones((2, 8)), d=np.ones((3, 8)))
        with pytest.raises(InputInvalid, match="no rows"):
            await ask(node, q=np.ones((0, 8)), d=np.ones((0, 8)))


@pytest.mark.parametrize(
    ("first", "batches"),
    [
        (("n", "n"), True),
        ((None, None), True),
        (("unk__1", "unk__2"), True),
        (("q_dynamic_axes_1", "d_dynamic_axes_1"), True),
        (("queries", "documents"), False),
        (("queries", 3), False),
    ],
)
async def test_without_a_configuration_inputs_must_name_their_rows_alike_to_batch(
    tmp_path, first, batches
):
    q, d = first
    nodes = [helper.make_node("Neg", [name], [output]) for name, output in (("q", "a"), ("d", "b"))]
    write_model(tmp_path, nodes, {"q": [q, 8], "d": [d, 8]}, {"a": [q, 8], "b": [d, 8]})
    async with serving(tmp_path) as node:
        assert (node.config("m")["max_batch_size"] > 0) == batches
        arrays = {"q": np.ones((2, 8)), "d": np.ones((3, 8))}
        if batches:
            with pytest.raises(InputInvalid, match="different numbers of rows"):
                await ask(node, **arrays)
        else:
            assert [len(answer) for answer in (await ask(node, **arrays)).values()] == [2, 3]


async def test_rows_that_are_compared_with_each_other_are_not_batched(tmp_path):
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    write_model(tmp_path, nodes, {"x": ["rows", 8]}, {"y": ["rows", "rows"]})
    async with serving(tmp_path) as node:
        answers = await asyncio.gather(*(ask(node, x=np.ones((2, 8))) for _ in range(3)))
        assert [answer["y"].shape for answer in answers] == [(2, 2)] * 3


async def test_requests_to_a_ranker_are_not_scored_against_each_others_documents(tmp_path):
    ranker(tmp_path)
    async with serving(tmp_path) as node:
        callers = [ask(node, q=np.full((2, 8), n), d=np.ones((2, 8))) for n in (1, 2, 3)]
        for n, answer in zip((1, 2, 3), await asyncio.gather(*callers), strict=True):
            assert answer["scores"].tolist() == [[8.0 * n] * 2] * 2
