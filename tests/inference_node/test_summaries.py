"""Models that declare distributions: what is refused at load, what is refused and given on request."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.forecasts import NORMAL, ONE, SAMPLES, ask, entry, rows, serving

from inference_node import (
    InferRequest,
    InputInvalid,
    RequestedOutput,
    Tensor,
    derived_outputs,
)
from inference_node import summaries as summaries_module


async def test_a_client_that_asks_for_nothing_gets_what_it_always_got(tmp_path):
    async with serving(tmp_path, NORMAL, SAMPLES) as node:
        answer = await ask(node)
        assert list(answer) == ["y", "draws"]
        np.testing.assert_array_equal(answer["y"], [[100, 15]])


async def test_what_is_declared_is_visible_in_metadata_and_configuration(tmp_path):
    async with serving(tmp_path, NORMAL) as node:
        metadata = node.metadata("forecast", None)
        assert metadata.parameters["distribution.glucose"] == "normal loc=y[0] scale=y[1]"
        assert [output.name for output in metadata.outputs] == ["y", "draws"]
        shown = node.config("forecast")["parameters"]["distribution.glucose"]
        assert shown == {"string_value": "normal loc=y[0] scale=y[1]"}
        request = InferRequest(inputs=ONE, parameters={"quantiles": "0.5", "moments": "variance"})
        derived = [output.name for output in derived_outputs(metadata, request)]
        assert derived == ["glucose.quantiles", "glucose.variance"]


async def test_quantiles_intervals_and_moments_come_as_outputs_of_their_own(tmp_path):
    async with serving(tmp_path, NORMAL, SAMPLES) as node:
        answer = await ask(node, quantiles="0.9, 0.05", intervals="0.5,0.9", moments="mean,variance")
        kinds = ("quantiles", "intervals", "mean", "variance")
        assert list(answer) == [
            "y",
            "draws",
            *(f"{n}.{k}" for n in ("draws", "glucose") for k in kinds),
        ]
        np.testing.assert_array_equal(answer["y"], [[100, 15]])
        np.testing.assert_array_equal(answer["draws"], [[1, 2, 3, 4, 5]])
        normal = stats.norm(100, 15)
        np.testing.assert_allclose(answer["glucose.quantiles"], [normal.ppf([0.9, 0.05])])
        np.testing.assert_allclose(
            answer["glucose.intervals"], [[normal.interval(0.5), normal.interval(0.9)]]
        )
        np.testing.assert_allclose(answer["glucose.mean"], [100])
        np.testing.assert_allclose(answer["glucose.variance"], [225])
        draws = [1, 2, 3, 4, 5]
        np.testing.assert_allclose(answer["draws.quantiles"], [np.quantile(draws, [0.9, 0.05])])
        np.testing.assert_allclose(answer["draws.intervals"], [[[2, 4], [1.2, 4.8]]])
        np.testing.assert_allclose(answer["draws.mean"], [3])
        np.testing.assert_allclose(answer["draws.variance"], [2.5])
        assert all(array.dtype == np.float64 for name, array in answer.items() if "." in name)


async def test_only_what_is_derived_may_be_asked_for(tmp_path):
    async with serving(tmp_path, NORMAL, SAMPLES) as node:
        parameters = {"quantiles": "0.5"}
        listed = RequestedOutput(name="draws.quantiles", parameters=parameters)
        assert list(await ask(node, listed)) == ["draws.quantiles"]
        listed = RequestedOutput(name="y", parameters=parameters)
        assert list(await ask(node, listed)) == ["y", "glucose.quantiles"]


async def test_an_outputs_own_parameters_outrank_the_requests(tmp_path):
    async with serving(tmp_path, NORMAL, SAMPLES) as node:
        own = RequestedOutput(name="draws", parameters={"quantiles": "0.5"})
        answer = await ask(node, own, quantiles="0.1,0.9")
        assert answer["draws.quantiles"].shape == (1, 1)
        assert answer["glucose.quantiles"].shape == (1, 2)


@pytest.mark.parametrize(
    "parameters",
    [
        {"quantiles": ""},
        {"quantiles": "0"},
        {"quantiles": "1"},
        {"quantiles": "nan"},
        {"quantiles": "0.5,"},
        {"quantiles": "0.5;0.6"},
        {"quantiles": "1e-400"},
        {"quantiles": ",".join(["0.5"] * 129)},
        {"quantiles": True},
        {"quantiles": [0.5]},
        {"quantiles": {"0": 0.5}},
        {"quantiles": 1},
        {"intervals": "90"},
        {"intervals": -0.9},
        {"moments": ""},
        {"moments": "median"},
        {"moments": "mean,mean"},
        {"moments": True},
    ],
    ids=str,
)
async def test_what_is_asked_for_wrongly_is_refused(tmp_path, parameters):
    async with serving(tmp_path, NORMAL) as node:
        with pytest.raises(InputInvalid, match=next(iter(parameters))):
            await ask(node, **parameters)
        own = RequestedOutput(name="y", parameters=parameters)
        with pytest.raises(InputInvalid, match=next(iter(parameters))):
            await ask(node, own)


async def test_what_the_model_does_not_declare_cannot_be_asked_for(tmp_path):
    half = {"quantiles": "0.5"}
    async with serving(tmp_path, NORMAL) as node:
        with pytest.raises(InputInvalid, match="no part of a declared distribution"):
            await ask(node, RequestedOutput(name="draws", parameters=half))
        with pytest.raises(InputInvalid, match="where the parameters"):
            await ask(node, "glucose.quantiles")
        other = RequestedOutput(name="glucose.mean", parameters={"quantiles": "0.6"})
        with pytest.raises(InputInvalid, match="other quantiles"):
            await ask(node, RequestedOutput(name="y", parameters=half), other, moments="mean")
        both = RequestedOutput(name="glucose.quantiles", parameters={**half, "classification": 1})
        with pytest.raises(InputInvalid, match="cannot be classified"):
            await ask(node, both)
        with pytest.raises(InputInvalid, match="gives only"):
            await ask(node, "glucose", quantiles="0.5")
    async with serving(tmp_path / "plain") as node:
        for parameter in ("quantiles", "intervals", "moments"):
            with pytest.raises(InputInvalid, match="declares no distribution"):
                await ask(node, **{parameter: "0.5"})


async def test_more_than_a_request_may_have_computed_is_refused(tmp_path):
    many = np.tile(ONE[0].array, (70_000, 1))
    inputs = [Tensor(name="x", datatype="FP32", shape=many.shape, array=many)]
    async with serving(tmp_path, NORMAL) as node:
        with pytest.raises(InputInvalid, match="fewer quantiles or rows"):
            await ask(node, inputs=inputs, quantiles=",".join(["0.5"] * 128))


async def test_a_long_computation_leaves_the_event_loop_free(tmp_path, monkeypatch):
    called = []
    real = asyncio.to_thread

    async def spy(function, *arguments):
        called.append(function)
        return await real(function, *arguments)

    async with serving(tmp_path, NORMAL) as node:
        monkeypatch.setattr(summaries_module.asyncio, "to_thread", spy)
        await ask(node, quantiles="0.5")
        assert not called
        many = np.tile(ONE[0].array, (1000, 1))
        inputs = [Tensor(name="x", datatype="FP32", shape=many.shape, array=many)]
        answer = await ask(node, inputs=inputs, quantiles="0.5")
        assert called == [summaries_module.answer]
        np.testing.assert_array_equal(answer["glucose.quantiles"], np.full((1000, 1), 100.0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "family must be one of"),
        ("cauchy loc=y[0]", "family must be one of"),
        ("normal loc=y[0]", "normal takes loc, scale"),
        ("normal loc=y[0] scale=y[1] df=3", "normal takes loc, scale"),
        ("normal loc=y[0] loc=y[1]", "different parameters"),
        ("normal loc scale", "different parameters"),
        ("normal loc=1 scale=2", "at least one parameter"),
        ("normal loc=y[0] scale=-1", "the number for scale is none that normal takes"),
        ("normal loc=y[0] scale=0", "the number for scale is none"),
        ("normal loc=nan scale=y[1]", "the number for loc is none"),
        ("student_t df=inf loc=y[0] scale=y[1]", "the number for df is none"),
        ("negative_binomial total_count=y[0] probs=1", "the number for probs is none"),
        ("negative_binomial total_count=y[0] logits=inf", "the number for logits is none"),
        ("mixture_normal probs=0 loc=y scale=y", "the number for probs is none"),
        ("normal loc=z[0] scale=y[1]", "does not give"),
        ("normal loc=y[0] scale=y[2]", "past the end"),
        ("normal loc=y[0] scale=y", "different shapes"),
        ("normal loc=y scale=draws", "different shapes"),
        ("bernoulli probs=y[0] logits=y[1]", "bernoulli takes probs or logits"),
        ("categorical probs=y[0]", "whole outputs"),
        ("samples draws=draws", "samples takes"),
        ("samples draws=draws axis=x", "samples takes"),
        ("samples draws=draws axis=0", "axis is none"),
        ("samples draws=draws axis=-2", "axis is none"),
        ("samples draws=draws axis=2", "axis is none"),
        ("samples draws=nothing axis=1", "does not give"),
    ],
)
async def test_a_declaration_that_cannot_hold_keeps_the_model_from_serving(tmp_path, text, reason):
    async with serving(tmp_path, entry("glucose", text)) as node:
        (state,) = node.index()
        assert state.state == "UNAVAILABLE"
        assert state.reason.startswith("config.pbtxt: parameters.distribution.glucose: ")
        assert reason in state.reason


async def test_a_derived_output_may_not_have_the_name_of_the_models_own(tmp_path):
    outputs = {"y": 2, "y.mean": 1}
    async with serving(tmp_path, entry("y", "normal loc=y[0] scale=y[1]"), **outputs) as node:
        assert "derived output's name" in node.index()[0].reason
    async with serving(tmp_path / "b", entry("a b", "poisson rate=y[0]")) as node:
        assert "must be named with" in node.index()[0].reason


@pytest.mark.parametrize("text", ["normal loc=537 scale=y", "normal loc=y scale=537"])
async def test_a_number_that_is_an_outputs_name_too_is_refused(tmp_path, text):
    async with serving(tmp_path, entry("glucose", text), **{"537": 1, "y": 1}) as node:
        assert "also the name of an output" in node.index()[0].reason


async def test_an_output_with_a_number_for_a_name_does_not_take_that_number_away(tmp_path):
    declarations = entry("a", "normal loc=y scale=537.0"), entry("b", "normal loc=537[0] scale=y[0]")
    async with serving(tmp_path, *declarations, **{"537": 1, "y": 1}) as node:
        answer = await ask(node, inputs=rows([3, 2]), moments="mean,variance")
        assert [answer[name].item() for name in ("a.mean", "a.variance", "b.mean")] == [2, 537**2, 3]


async def test_an_output_that_configuration_leaves_out_cannot_be_declared(tmp_path):
    config = 'output { name: "draws" data_type: TYPE_FP32 dims: [ 5 ] }\n'
    async with serving(tmp_path, NORMAL, config=config) as node:
        assert "does not give" in node.index()[0].reason


@pytest.mark.parametrize(
    ("text", "outputs", "row", "expected"),
    [
        ("student_t df=4 loc=a scale=b", {"a": 1, "b": 1}, [1, 2], stats.t(4, 1, 2)),
        ("bernoulli logits=a", {"a": 1}, [1], stats.bernoulli(1 / (1 + np.exp(-1)))),
        ("negative_binomial total_count=a[1] logits=a[0]", {"a": 2}, [0, 3], stats.nbinom(3, 0.5)),
        ("gamma concentration=a[0] rate=a[1]", {"a": 2}, [2, 4], stats.gamma(2, scale=0.25)),
    ],
)
async def test_parameters_may_be_outputs_places_numbers_or_logits(
    tmp_path, text, outputs, row, expected
):
    async with serving(tmp_path, entry("d", text), **outputs) as node:
        answer = await ask(node, inputs=rows(row), quantiles="0.1,0.5,0.9")
        found = answer["d.quantiles"].reshape(3)
        np.testing.assert_allclose(found, expected.ppf([0.1, 0.5, 0.9]), rtol=1e-6)


async def test_a_mixture_and_a_categorical_lie_along_the_last_axis(tmp_path):
    declarations = (
        entry("stage", "categorical logits=w"),
        entry("glucose", "mixture_normal logits=w loc=m scale=0.001"),
    )
    async with serving(tmp_path, *declarations, w=3, m=3) as node:
        row = [np.log(0.2), np.log(0.5), np.log(0.3), 10, 20, 30]
        answer = await ask(node, inputs=rows(row, row), quantiles="0.1,0.5,0.8", moments="mean")
        np.testing.assert_array_equal(answer["stage.quantiles"], [[0, 1, 2]] * 2)
        np.testing.assert_allclose(answer["stage.mean"], [1.1] * 2, rtol=1e-6)
        np.testing.assert_allclose(answer["glucose.quantiles"], [[10, 20, 30]] * 2, atol=0.01)
        np.testing.assert_allclose(answer["glucose.mean"], [21] * 2, rtol=1e-6)


async def test_a_row_whose_parameters_are_none_has_nan_and_the_others_their_own(tmp_path):
    async with serving(tmp_path, NORMAL) as node:
        inputs = rows([100, 15, 0, 0, 0, 0, 0], [100, -1, 0, 0, 0, 0, 0])
        answer = await ask(node, inputs=inputs, quantiles="0.5", moments="mean")
        np.testing.assert_array_equal(answer["glucose.quantiles"], [[100], [np.nan]])
        np.testing.assert_array_equal(answer["glucose.mean"], [100, np.nan])


@given(
    questions=st.lists(
        st.tuples(
            st.lists(st.tuples(st.floats(-50, 50), st.floats(0.5, 9)), min_size=1, max_size=3),
            st.lists(st.sampled_from([0.05, 0.5, 0.9]), max_size=3),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_questions_that_run_together_each_get_their_own_answer(tmp_path_factory, questions):
    async def run():
        folder = tmp_path_factory.mktemp("together")
        async with serving(folder, entry("y", "normal loc=y[0] scale=y[1]"), y=2) as node:
            asked = [
                ask(
                    node,
                    inputs=rows(*values),
                    **({"quantiles": ",".join(map(str, levels))} if levels else {}),
                )
                for values, levels in questions
            ]
            return await asyncio.gather(*asked)

    for (values, levels), answer in zip(questions, asyncio.run(run()), strict=True):
        p = np.array(values, np.float32).astype(np.float64)
        np.testing.assert_array_equal(answer["y"], p.astype(np.float32))
        assert ("y.quantiles" in answer) == bool(levels)
        if levels:
            expected = stats.norm(p[:, :1], p[:, 1:]).ppf(levels)
            np.testing.assert_allclose(answer["y.quantiles"], expected, rtol=1e-9, atol=1e-12)


async def test_each_step_of_a_stream_has_its_own(tmp_path):
    config = (
        "model_transaction_policy { decoupled: true }\n"
        'parameters { key: "feedback" value { string_value: "y:x" } }\n'
        'parameters { key: "steps" value { string_value: "2" } }\n'
    )
    declaration = entry("y", "normal loc=y[0] scale=y[1]")
    async with serving(tmp_path, declaration, config=config, y=2) as node:
        request = InferRequest(inputs=rows([3, 1]), parameters={"moments": "mean"})
        steps = [step async for step in node.stream("forecast", None, request)]
        assert [[tensor.name for tensor in step.outputs] for step in steps] == [["y", "y.mean"]] * 2
        assert steps[1].outputs[1].array == 3
