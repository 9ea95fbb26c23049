"""What is hashed, checked and served are the same bytes, and they are let go of once they are served.

Seen to fail: with a digest, a check or a session that reads the file for itself; with ONNX Runtime
left to guess the format; and with the session left to hold what it was opened from.
"""

import hashlib
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import linear_model
from support.repositories import constant_model, request, save, states
from support.served_models import serving

from inference_node import ModelNotReady, loading, runtime
from inference_node.model_file import MODEL_LIMIT_BYTES, safe_operators
from inference_node.runtime import CPU, Session


def open_session(path):
    return Session(path.read_bytes(), provider=CPU, intra_op_threads=1)


@pytest.mark.parametrize(
    ("module", "step"), [(loading, "verify_release"), (runtime.ort, "InferenceSession")]
)
async def test_a_file_that_is_replaced_while_it_is_loaded_serves_under_its_own_digest(
    tmp_path, monkeypatch, module, step
):
    path = tmp_path / "m/1/model.onnx"
    constant_model(path, 1)
    released = hashlib.sha256(path.read_bytes()).hexdigest()
    taken = getattr(module, step) if module is runtime.ort else lambda *_: None

    def replacing(*arguments, **options):
        constant_model(tmp_path / "other.onnx", 2)
        os.replace(tmp_path / "other.onnx", path)
        return taken(*arguments, **options)

    monkeypatch.setattr(module, step, replacing)
    async with serving(tmp_path, release_keys=("ab" * 32,) if module is loading else ()) as node:
        assert [entry.digest for entry in node.index()] == [released]
        assert (await node.infer("m", None, request())).outputs[0].array[0, 0] == 1


async def test_a_file_that_is_larger_than_a_model_can_be_is_refused_unread(tmp_path):
    path = tmp_path / "m/1/model.onnx"
    linear_model(path)
    os.truncate(path, MODEL_LIMIT_BYTES + 1)
    async with serving(tmp_path) as node:
        assert states(node)["m", "1"].startswith("broken: the model file has 2 GiB or more")


def test_a_session_does_not_keep_the_file(tmp_path):
    linear_model(tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    held = sys.getrefcount(data)
    session = Session(data, provider=CPU, intra_op_threads=1)
    assert sys.getrefcount(data) == held
    assert session.inputs[0].name == "x"


def test_bytes_in_the_runtimes_own_format_are_not_opened_unchecked(tmp_path, monkeypatch):
    linear_model(tmp_path / "model.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(tmp_path / "model.onnx"), options, providers=[CPU])
    with pytest.raises(ModelNotReady, match="not an ONNX model"):
        open_session(tmp_path / "model.ort")
    # Bytes that are one thing to the check and another to the runtime are caught by the runtime.
    monkeypatch.setattr(runtime, "safe_operators", lambda data: None)
    with pytest.raises(ModelNotReady, match="cannot load"):
        open_session(tmp_path / "model.ort")


def test_weights_in_other_files_are_found_in_branches_too(tmp_path):
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../etc/hostname")
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=weight)], "branch", [], [value]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    path = tmp_path / "model.onnx"
    save(helper.make_graph([node], "outer", [condition], [value]), path)
    with pytest.raises(ModelNotReady, match="unsafe: the model keeps its weights"):
        open_session(path)


def squaring():
    """Return a model that calls one function, of a domain of its own."""
    body = helper.make_node("Mul", ["x", "x"], ["y"])
    function = helper.make_function(
        "own.functions", "Square", ["x"], ["y"], [body], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("Square", ["x"], ["y"], domain="own.functions")
    graph = helper.make_graph([node], "squaring", [value_of("x")], [value_of("y")])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own.functions", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=imports)
    model.ir_version = 10
    return model


async def served(tmp_path, model):
    path = tmp_path / "m/1/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    async with serving(tmp_path) as node:
        return states(node)["m", "1"]


async def test_a_model_that_the_runtime_wrote_is_served(tmp_path):
    linear_model(tmp_path / "plain.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(tmp_path / "plain.onnx"), options, providers=[CPU])
    model = onnx.load(str(tmp_path / "optimized.onnx"))
    assert "com.microsoft.nchwc" in {opset.domain for opset in model.opset_import}
    assert await served(tmp_path / "models", model) == "READY"


async def test_a_domain_that_no_node_uses_and_a_model_s_own_functions_are_served(tmp_path):
    model = squaring()
    model.opset_import.append(helper.make_opsetid("unused.ops", 1))
    assert await served(tmp_path, model) == "READY"


def conditional(branch):
    """Return a node that runs `branch`."""
    return helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)


def custom(domain="evil.ops"):
    return helper.make_node("Relu", ["x"], ["y"], domain=domain)


def branch_of(node):
    return helper.make_graph([node], "branch", [], [value_of("y")])


def value_of(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 3])


def in_the_graph(model):
    model.graph.node.append(custom())


def in_a_branch_of_a_branch(model):
    model.graph.node.append(conditional(branch_of(conditional(branch_of(custom())))))


def in_a_function(model):
    model.functions[0].node.append(custom())


def in_a_branch_of_a_function(model):
    model.functions[0].node.append(conditional(branch_of(custom())))


def in_a_function_that_no_node_calls(model):
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["x"], ["y"]))
    model.functions[0].node.append(custom())


def in_the_default_of_a_function_s_attribute(model):
    model.functions[0].attribute_proto.append(helper.make_attribute("then", branch_of(custom())))


def in_a_list_of_graphs(model):
    model.graph.node[0].attribute.append(helper.make_attribute("all", [branch_of(custom())]))


def in_a_function_s_domain_that_has_no_such_function(model):
    model.graph.node.append(custom("own.functions"))


def in_another_overload_of_a_function(model):
    model.graph.node[0].overload = "other"


def in_the_graph_that_trains_it(model):
    model.training_info.add().algorithm.CopyFrom(branch_of(custom()))


HIDDEN = [
    in_the_graph,
    in_a_branch_of_a_branch,
    in_a_function,
    in_a_branch_of_a_function,
    in_a_function_that_no_node_calls,
    in_the_default_of_a_function_s_attribute,
    in_a_list_of_graphs,
    in_a_function_s_domain_that_has_no_such_function,
    in_another_overload_of_a_function,
    in_the_graph_that_trains_it,
]


@pytest.mark.parametrize("imported", [True, False])
@pytest.mark.parametrize("hide", HIDDEN)
def test_a_custom_operator_is_found_wherever_it_is(hide, imported):
    model = squaring()
    safe_operators(model.SerializeToString())
    hide(model)
    if imported:
        model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    with pytest.raises(ModelNotReady, match="unsafe: the model needs custom operators"):
        safe_operators(model.SerializeToString())


def test_a_compiled_model_is_refused():
    """TensorRT would open the file that it names, or run the engine that it is."""
    model = squaring()
    model.graph.node.append(
        helper.make_node(
            "EPContext", ["x"], ["z"], domain="com.microsoft", embed_mode=0, ep_cache_context="../other"
        )
    )
    with pytest.raises(ModelNotReady, match="unsafe: the model is a compiled one"):
        safe_operators(model.SerializeToString())


def test_weights_in_other_files_are_found_in_the_default_of_a_function_s_attribute():
    model = squaring()
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    weight.data_location = TensorProto.EXTERNAL
    model.functions[0].attribute_proto.append(helper.make_attribute("value", weight))
    with pytest.raises(ModelNotReady, match="unsafe: the model keeps its weights"):
        safe_operators(model.SerializeToString())
