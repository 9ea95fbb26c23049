"""Quantizing, pruning and comparing, part by part: what is refused, and what the figures mean."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import roc_auc_score
from support import linear_model, make_site
from support.models import identity_model

from bedside.errors import BedsideError
from bedside.models import comparison as comparing
from bedside.models import pruning
from bedside.models.comparison import Comparison, ComparisonImpossible, compare, open_session
from bedside.models.compression import LossTooLarge, check_target, compress
from bedside.models.quantization import QuantizationImpossible, Ranges, quantize
from bedside.models.rows import Rows, RowsInvalid, read_rows
from coordinator import ReleasedEquivalence, ReleasedTensor, build_release, sign_release
from inference_node import Node, NodeSettings

RANDOM = np.random.default_rng(3)


def graph(path, nodes, inputs, outputs, **weights):
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [value(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def conv_model(path, rows="rows"):
    """Write a convolution and a product; nodes are called `conv` and `product`."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="product"),
    ]
    kernel, weights = RANDOM.normal(size=(16, 1, 3, 3)), RANDOM.normal(size=(16 * 16, 64))
    inputs, outputs = {"x": [rows, 1, 4, 4]}, {"y": [rows, 64]}
    return graph(path, nodes, inputs, outputs, k=kernel, w=weights)


def rows_of(count=40, labels=None, shape=(1, 4, 4)):
    x = RANDOM.normal(size=(count, *shape)).astype(np.float32)
    return Rows(inputs={"x": x}, labels=labels, sha256="00" * 32)


def types(path):
    return {node.name: node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("ranges", [*Ranges, None], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_way_of_quantizing_makes_a_smaller_model_that_a_node_takes(tmp_path, ranges, per_channel):
    model, target = conv_model(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    rows = rows_of()
    calibration = None if ranges is None else rows
    quantize(
        model,
        target,
        calibration=calibration,
        ranges=ranges or Ranges.MINMAX,
        per_channel=per_channel,
    )
    found = compare(model, target, rows, runs=3, batches=(1, 8))
    assert found.candidate_bytes < 0.6 * found.original_bytes
    assert found.agreement > 0.7
    assert 0 < found.max_abs_difference < 3
    assert [latency.batch for latency in found.latencies] == [1, 8]
    assert all(latency.candidate_p99_us >= latency.candidate_median_us for latency in found.latencies)


def test_nodes_that_are_kept_stay_in_floating_point(tmp_path):
    model, target = conv_model(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    quantize(model, target, calibration=None, keep=["conv"])
    kept = set(types(target).values())
    assert "Conv" in kept
    assert kept & {"MatMulInteger", "DynamicQuantizeMatMul"}
    with pytest.raises(QuantizationImpossible, match=r"no node nothing; .*conv, .*product"):
        quantize(model, tmp_path / "r.onnx", calibration=None, keep=["nothing"])


def test_a_model_with_nothing_to_quantize_is_said_to_be_one(tmp_path):
    identity_model(tmp_path / "m.onnx", y=2)
    with pytest.raises(QuantizationImpossible, match="operators are Split"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", calibration=None)


def test_a_quantized_model_is_not_quantized_again(tmp_path):
    quantize(conv_model(tmp_path / "m.onnx"), tmp_path / "q.onnx", calibration=rows_of())
    with pytest.raises(QuantizationImpossible, match="quantized already"):
        quantize(tmp_path / "q.onnx", tmp_path / "r.onnx", calibration=None)


def test_a_model_that_a_node_would_refuse_is_refused(tmp_path):
    path = conv_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    model.graph.node[0].domain = "evil.ops"
    onnx.save(model, path)
    with pytest.raises(ComparisonImpossible, match="custom operators"):
        open_session(path)
    with pytest.raises(ComparisonImpossible, match="no file"):
        open_session(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ComparisonImpossible, match="not an ONNX model"):
        open_session(tmp_path / "text.onnx")


def scaled(path, slope, shift=0.0):
    """Write y = slope * x + shift for x [rows, 1]."""
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["y"]),
    ]
    a, b = np.array([[slope]]), np.array([[shift]])
    return graph(path, nodes, {"x": ["rows", 1]}, {"y": ["rows", 1]}, a=a, b=b)


def line(labels=None, count=50):
    x = np.linspace(-1, 1, count, dtype=np.float32)[:, None]
    return Rows(inputs={"x": x}, labels=labels, sha256="00" * 32)


def found_of(tmp_path, one, other, rows):
    return compare(scaled(tmp_path / "a.onnx", *one), scaled(tmp_path / "b.onnx", *other), rows, runs=1)


def test_the_loss_of_a_regressor_is_the_rise_of_its_rmse(tmp_path):
    rows = line()
    labels = rows.inputs["x"][:, 0].astype(np.float64) * 2 + np.where(np.arange(50) % 2, 0.1, -0.1)
    found = found_of(tmp_path, (2.0,), (2.0, 0.2), line(labels))
    assert found.original.rmse == pytest.approx(0.1, rel=1e-5)
    assert found.candidate.rmse == pytest.approx(np.sqrt((0.3**2 + 0.1**2) / 2), rel=1e-5)
    assert found.loss == pytest.approx(found.candidate.rmse / found.original.rmse - 1)
    assert found.candidate.mae == pytest.approx(0.2, rel=1e-5)


def test_the_loss_of_a_binary_classifier_is_the_larger_fall_of_accuracy_and_auroc(tmp_path):
    labels = (line().inputs["x"][:, 0] > 0).astype(np.int64)
    upside_down = found_of(tmp_path, (2.0,), (-2.0,), line(labels))
    assert (upside_down.original.accuracy, upside_down.original.auroc) == (1, 1)
    assert (upside_down.candidate.accuracy, upside_down.candidate.auroc) == (0, 0)
    assert upside_down.loss == 1
    shifted = found_of(tmp_path, (2.0,), (2.0, 1.0), line(labels))
    assert shifted.candidate.auroc == 1
    assert shifted.loss == pytest.approx(1 - shifted.candidate.accuracy)
    assert 0.2 < shifted.loss < 0.3
    better = found_of(tmp_path, (-2.0,), (2.0,), line(labels))
    assert better.loss == -1


def test_without_labels_the_difference_is_measured_against_the_outputs_spread(tmp_path):
    found = found_of(tmp_path, (2.0,), (2.0, 0.3), line())
    assert not found.labelled
    assert found.max_abs_difference == pytest.approx(0.3, rel=1e-5)
    assert found.loss == pytest.approx(0.3 / (2 * line().inputs["x"].std()), rel=1e-4)
    assert found_of(tmp_path, (2.0,), (2.0,), line()).loss == 0
    assert found_of(tmp_path, (0.0,), (0.0, 0.1), line()).loss == np.inf


@pytest.mark.parametrize("labels", [None, np.tile([0, 1], 25), np.linspace(0, 3, 50)])
def test_an_output_that_is_no_number_is_an_infinite_loss(tmp_path, labels):
    assert found_of(tmp_path, (2.0,), (np.nan,), line(labels)).loss == np.inf


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.3, 0.5, 0.7])), min_size=2, max_size=40
    ).filter(lambda rows: len({label for label, _ in rows}) == 2)
)
def test_auroc_is_that_of_scikit_learn_also_with_ties(rows):
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    assert comparing._auroc(scores, labels == 1) == pytest.approx(roc_auc_score(labels, scores))


def test_several_classes_are_each_judged_against_the_rest(tmp_path):
    linear_model(tmp_path / "m.onnx", features=3, classes=4)
    x = RANDOM.normal(size=(60, 3)).astype(np.float32)
    labels = RANDOM.integers(0, 4, 60)
    rows = Rows(inputs={"x": x}, labels=labels, sha256="00" * 32)
    found = compare(tmp_path / "m.onnx", tmp_path / "m.onnx", rows, runs=1)
    (scores,) = open_session(tmp_path / "m.onnx").run({"x": x}, ("y",))
    expected = roc_auc_score(np.eye(4)[labels], scores, average="macro")
    assert found.original.auroc == pytest.approx(expected)
    assert found.agreement == 1
    assert found.loss == 0
    wrong = Rows(inputs={"x": x}, labels=labels + 1, sha256="")
    with pytest.raises(ComparisonImpossible, match="indices of the output's classes"):
        compare(tmp_path / "m.onnx", tmp_path / "m.onnx", wrong, runs=1)
    with pytest.raises(ComparisonImpossible, match="one of floating point: y"):
        compare(tmp_path / "m.onnx", tmp_path / "m.onnx", rows, output="z", runs=1)


def test_a_model_of_a_fixed_batch_is_measured_on_every_row_at_that_batch(tmp_path):
    fixed, rows = conv_model(tmp_path / "fixed.onnx", rows=8), rows_of(19)
    quantize(fixed, tmp_path / "q.onnx", calibration=rows)
    found = compare(fixed, tmp_path / "q.onnx", rows, runs=1)
    assert found.rows == 19
    assert [latency.batch for latency in found.latencies] == [8]


def a_comparison(loss):
    figures = comparing.Figures()
    return Comparison(
        rows=1,
        not_finite=0,
        output="y",
        labelled=False,
        original=figures,
        candidate=figures,
        agreement=None,
        max_abs_difference=0.0,
        mean_abs_difference=0.0,
        loss=loss,
        loss_is="a loss",
        original_bytes=1,
        candidate_bytes=1,
        latencies=(),
    )


@pytest.mark.parametrize(("loss", "written"), [(0.01, True), (0.0100001, False), (np.nan, False)])
def test_past_the_loss_it_is_shown_and_nothing_is_written(tmp_path, loss, written):
    original, target, shown = tmp_path / "m.onnx", tmp_path / "q.onnx", []
    original.write_bytes(b"original")

    def attempt():
        return compress(
            original,
            target,
            make=lambda path: path.write_bytes(b"smaller"),
            measure=lambda path: a_comparison(loss),
            seen=shown.append,
            max_loss=0.01,
            method={},
            packages=("numpy",),
            data_sha256={},
        )

    if written:
        attempt()
        assert target.read_bytes() == b"smaller"
        assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "q.onnx", "q.json"}
        with pytest.raises(BedsideError, match="exists"):
            attempt()
    else:
        with pytest.raises(LossTooLarge, match=r"at most 0\.01 is allowed"):
            attempt()
        assert {path.name for path in tmp_path.iterdir()} == {"m.onnx"}
    assert len(shown) == 1


def test_a_target_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(BedsideError, match=r"end in \.onnx"):
        check_target(tmp_path / "model.bin")
    with pytest.raises(BedsideError, match="no folder"):
        check_target(tmp_path / "none" / "m.onnx")
    (tmp_path / "m.json").touch()
    with pytest.raises(BedsideError, match="exists"):
        check_target(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"z": np.zeros((2, 1, 4, 4))}, "no array x"),
        ({"x": np.zeros((2, 1, 4))}, r"shape \[any, 1, 4, 4\]"),
        ({"x": np.zeros((2, 1, 4, 5))}, r"shape \[any, 1, 4, 4\]"),
        ({"x": np.zeros((0, 1, 4, 4))}, "has no rows"),
        ({"x": np.zeros((2, 1, 4, 4)), "labels": np.zeros(3)}, "different numbers of rows"),
        ({"x": np.zeros((2, 1, 4, 4)), "labels": np.array(["a", "b"])}, "must be numbers"),
        ({"x": np.full((2, 1, 4, 4), "a")}, "must be FP32"),
        ({"x": np.zeros((2, 1, 4, 4)), "name": np.zeros(2)}, "neither an input"),
        ({"x": np.array([{}, {}])}, "plain arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_do_not_fit_the_model_are_refused_by_name(tmp_path, arrays, reason):
    inputs = open_session(conv_model(tmp_path / "m.onnx")).inputs
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(RowsInvalid, match=reason):
        read_rows(tmp_path / "rows.npz", inputs)


def test_no_row_is_both_calibrated_and_measured_on(tmp_path):
    x = np.arange(1201, dtype=np.float32)[:, None]
    rows = Rows(inputs={"x": x}, labels=x[:, 0], sha256="")
    calibration, measured = rows.halves()
    seen, kept = set(calibration.inputs["x"].ravel()), set(measured.inputs["x"].ravel())
    assert len(calibration) == 512
    assert not seen & kept
    assert len(seen | kept) == 1201
    np.testing.assert_array_equal(measured.inputs["x"][:, 0], measured.labels)
    with pytest.raises(RowsInvalid, match="one row"):
        rows.take(np.array([0])).halves()


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))


@pytest.mark.parametrize(("multiple", "left"), [(1, 16), (8, 16), (12, 12)])
def test_pruning_removes_whole_features_and_keeps_blocks(tmp_path, multiple, left):
    module, examples = network().eval(), {"x": torch.randn(2, 8)}
    pruning.prune(module, examples, ratio=0.5, multiple=multiple)
    assert (module[0].out_features, module[2].in_features, module[2].out_features) == (left, left, 3)
    pruning.export_examples(module, examples, tmp_path / "p.onnx")
    (given,) = open_session(tmp_path / "p.onnx").run({"x": examples["x"].numpy()}, ("y",))
    np.testing.assert_allclose(given, module(examples["x"]).detach().numpy(), atol=1e-5)


def test_what_cannot_be_pruned_is_said(tmp_path):
    examples = {"x": torch.randn(2, 8)}
    with pytest.raises(pruning.PruningImpossible, match="no layer 7; it has 0, 2"):
        pruning.prune(network(), examples, ratio=0.5, keep=["7"])
    with pytest.raises(pruning.PruningImpossible, match="shape of the output"):
        pruning.prune(network(), examples, ratio=0.5, multiple=1, keep=["0"])
    with pytest.raises(pruning.PruningImpossible, match="no linear"):
        pruning.prune(torch.nn.ReLU(), examples, ratio=0.5)
    with pytest.raises(pruning.PruningImpossible, match="nothing can be pruned"):
        pruning.prune(network(), examples, ratio=0.8)


def test_a_checkpoint_that_would_run_code_or_is_another_models_is_refused(tmp_path):
    factory = "torch.nn:ReLU"
    torch.save(network(), tmp_path / "whole.pt")
    torch.save(network().state_dict(), tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("nothing")
    for name in ("whole.pt", "state.pt", "text.pt"):
        with pytest.raises(pruning.PruningImpossible, match="not a state dict"):
            pruning.load_module(factory, tmp_path / name)
    for wrong in ("torch.nn", "torch.nn:Nothing", "no.such:thing", ":x", "math:pi"):
        with pytest.raises(pruning.PruningImpossible):
            pruning.named(wrong)


async def test_a_release_carries_the_figures_and_a_node_serves_it_signed(tmp_path):
    site = make_site(tmp_path)
    quantized = tmp_path / "q.onnx"
    rows = rows_of()
    model = conv_model(tmp_path / "m.onnx")
    quantize(model, quantized, calibration=rows)
    found = compare(model, quantized, rows, runs=1)
    release = build_release(
        quantized,
        model="stage",
        version=2,
        inputs=[ReleasedTensor(name="x", datatype="FP32", shape=(-1, 1, 4, 4))],
        outputs=[ReleasedTensor(name="y", datatype="FP32", shape=(-1, 64))],
        equivalence=ReleasedEquivalence(
            rows=found.rows, max_abs_difference=found.max_abs_difference, tolerance=3.0
        ),
        checkpoint_sha256="0" * 64,
        threshold=0.5,
    )
    document = sign_release(release, site.keys.signing_key("release"))
    site.releases().publish(document, quantized)
    settings = site.node_settings()
    assert settings.release_keys
    node = Node(NodeSettings(repository=settings.repository, release_keys=settings.release_keys))
    await node.start()
    try:
        assert [(entry.version, entry.state) for entry in node.index()] == [("2", "READY")]
    finally:
        await node.close()
