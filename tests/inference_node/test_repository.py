"""A Triton repository on disk, served as it is: versions, configuration, warm-up, changes under load.

Seen to fail: with `latest` passed over, `warm_up` or `refuse_outside` left out, a broken version
dropped by `swap`, no labels, and branches not searched. That each rule is what the reference says is
test_model_repository_reference.py's.
"""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from support import linear_model
from support.repositories import constant_model, lay_out, request, save, states
from support.served_models import serving

from inference_node import (
    InputInvalid,
    ModelNotReady,
    ModelUnknown,
    RequestedOutput,
    loading,
)
from inference_node.batch import QueuePolicy, Ragged
from inference_node.model_config import Hardware, _ModelConfig, read_config
from inference_node.model_config_rules import RULES, Action

BATCHED = """
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [3] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
"""


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", ["3"]),
        ("version_policy { latest { num_versions: 2 } }", ["2", "3"]),
        ("version_policy { all {} }", ["1", "2", "3"]),
        ("version_policy { specific { versions: [1, 3] } }", ["1", "3"]),
    ],
)
async def test_the_version_policy_says_which_versions_serve(tmp_path, policy, served):
    lay_out(tmp_path, f'name: "m"\n{policy}', versions=(1, 2, 3))
    (tmp_path / "m" / "01").mkdir()
    (tmp_path / "m" / "notes").mkdir()
    async with serving(tmp_path) as node:
        assert [version for _, version in states(node)] == served
        assert (await node.infer("m", None, request())).model_version == "3"


async def test_without_a_configuration_every_version_serves(tmp_path):
    lay_out(tmp_path, versions=(1, 12, 3))
    async with serving(tmp_path) as node:
        assert node.metadata("m", None).versions == ("1", "3", "12")


async def test_a_version_that_the_policy_names_and_is_missing_is_reported(tmp_path):
    lay_out(tmp_path, "version_policy { specific { versions: [1, 9] } }")
    async with serving(tmp_path, strict_readiness=False) as node:
        assert states(node)["m", "9"].startswith("missing")
        assert node.ready
        assert (await node.infer("m", "1", request())).model_version == "1"


def sample(path):
    """Return a ModelConfig in which the field at `path` is set, in text format."""
    message = _ModelConfig()
    target = message
    *parents, last = path.split(".")
    for part in parents:
        field = target.DESCRIPTOR.fields_by_name[part]
        target = getattr(target, part)
        target = target.add() if field.is_repeated else target
    field = target.DESCRIPTOR.fields_by_name[last]
    value = getattr(target, last)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, entry = (field.message_type.fields_by_name[part] for part in ("key", "value"))
        name = "k" if key.cpp_type == key.CPPTYPE_STRING else 1
        if entry.message_type is not None:
            value.get_or_create(name).SetInParent()
        else:
            value[name] = "v"
    elif field.message_type is not None:
        value.add().SetInParent() if field.is_repeated else value.SetInParent()
    else:
        one = {field.CPPTYPE_STRING: "v", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
        value.append(one) if field.is_repeated else setattr(target, last, one)
    return text_format.MessageToString(message)


def of(action) -> Iterator[str]:
    return (path for path, rule in RULES.items() if rule.action is action)


@pytest.mark.parametrize("path", of(Action.REFUSED))
def test_a_field_that_is_refused_is_refused_by_name(tmp_path, path):
    folder = lay_out(tmp_path, sample(path))
    with pytest.raises(ModelNotReady, match=path.split(".")[0]):
        read_config(folder)


@pytest.mark.parametrize("path", of(Action.IGNORED))
def test_a_field_that_is_ignored_changes_nothing(tmp_path, path):
    folder = lay_out(tmp_path, sample(path))
    config = read_config(folder)
    assert config.fields
    (folder / "config.pbtxt").write_text("version_policy { latest { num_versions: 1 } }")
    plain = read_config(folder)
    ours = (config.model_file, config.latest, config.instances, config.hardware, config.ragged)
    assert ours == (plain.model_file, plain.latest, plain.instances, plain.hardware, plain.ragged)
    if config.queue is not None:
        assert config.queue == QueuePolicy()


QUEUE = "dynamic_batching { %s default_queue_policy { %s } }"
WARM = 'model_warmup [{ name: "w" batch_size: 2 count: 3 inputs { key: "x" value: { %s } } }]'
FP32 = "data_type: TYPE_FP32 dims: [3]"
TRT = 'optimization { execution_accelerators { gpu_execution_accelerator: [{ name: "tensorrt" %s }] } }'
TRT16 = TRT % 'parameters { key: "precision_mode" value: "FP16" }'
STEPS = (
    "model_transaction_policy { decoupled: true } "
    'parameters { key: "feedback" value: { string_value: "y:x" } } '
    'parameters { key: "steps" value: { string_value: "4" } }'
)

HONOURED = {
    "version_policy.latest.num_versions": (
        "version_policy { latest { num_versions: 2 } }",
        lambda c: c.latest == 2,
    ),
    "version_policy.all": ("version_policy { all {} }", lambda c: c.latest == 0 and not c.specific),
    "version_policy.specific.versions": (
        "version_policy { specific { versions: [4] } }",
        lambda c: c.specific == (4,),
    ),
    "max_batch_size": ("max_batch_size: 5", lambda c: c.max_batch_size == 5),
    "input.name": (BATCHED, lambda c: c.inputs[0].name == "x"),
    "input.data_type": (BATCHED, lambda c: c.inputs[0].datatype == "FP32"),
    "input.dims": (BATCHED, lambda c: c.inputs[0].dims == (3,)),
    "input.reshape": (
        BATCHED.replace("dims: [3]", "dims: [3] reshape { shape: [1, 3] }"),
        lambda c: c.inputs[0].reshape == (1, 3),
    ),
    "output.reshape": (
        BATCHED.replace("dims: [2]", "dims: [2] reshape { shape: [2, 1] }"),
        lambda c: c.outputs[0].reshape == (2, 1),
    ),
    "output.name": (BATCHED, lambda c: c.outputs[0].name == "y"),
    "output.data_type": (BATCHED, lambda c: c.outputs[0].datatype == "FP32"),
    "output.dims": (BATCHED, lambda c: c.outputs[0].dims == (2,)),
    "output.label_filename": (
        'output [{ name: "y" label_filename: "l.txt" }]',
        lambda c: c.outputs[0].labels.name == "l.txt",
    ),
    "dynamic_batching.max_queue_delay_microseconds": (
        "dynamic_batching { max_queue_delay_microseconds: 7 }",
        lambda c: c.queue.max_queue_delay_s == 7e-6,
    ),
    "dynamic_batching.priority_levels": (
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
        lambda c: c.queue.priority(3) == 3,
    ),
    "dynamic_batching.default_priority_level": (
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
        lambda c: c.queue.priority(0) == c.queue.priority(9) == 2,
    ),
    "dynamic_batching.default_queue_policy.timeout_action": (
        QUEUE % ("", "timeout_action: DELAY"),
        lambda c: c.queue.delays_late,
    ),
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": (
        QUEUE % ("", "default_timeout_microseconds: 9"),
        lambda c: c.queue.timeout(0) == 9e-6 == c.queue.timeout(1),
    ),
    "dynamic_batching.default_queue_policy.allow_timeout_override": (
        QUEUE % ("", "allow_timeout_override: true default_timeout_microseconds: 9"),
        lambda c: c.queue.timeout(2e-6) == 2e-6 and c.queue.timeout(1) == 9e-6,
    ),
    "dynamic_batching.default_queue_policy.max_queue_size": (
        QUEUE % ("", "max_queue_size: 4"),
        lambda c: c.queue.max_queue_size == 4,
    ),
    "instance_group.kind": (
        "instance_group [{ kind: KIND_CPU }]",
        lambda c: c.hardware is Hardware.CPU,
    ),
    "instance_group.count": (
        "instance_group [{ count: 2 }, { count: 3 }]",
        lambda c: c.instances == 5,
    ),
    "default_model_filename": (
        'default_model_filename: "other.onnx"',
        lambda c: c.model_file == "other.onnx",
    ),
    "parameters": (
        (
            'parameters { key: "ragged" value: { string_value: "pad" } } '
            'parameters { key: "intra_op_thread_count" value: { string_value: "2" } }'
        ),
        lambda c: (c.ragged, c.intra_op_threads) == (Ragged.PAD, 2),
    ),
    "model_warmup.batch_size": (WARM % FP32, lambda c: c.warmups[0].rows == 2),
    "model_warmup.count": (WARM % FP32, lambda c: c.warmups[0].count == 3),
    "model_warmup.inputs": (
        WARM % f"{FP32} random_data: true",
        lambda c: c.warmups[0].inputs["x"].random and c.warmups[0].inputs["x"].dims == (3,),
    ),
    "model_transaction_policy.decoupled": (
        STEPS,
        lambda c: c.iteration.steps == 4 and c.iteration.feedback == {"y": "x"},
    ),
    "optimization.execution_accelerators.gpu_execution_accelerator.name": (
        TRT % "",
        lambda c: c.tensorrt == {},
    ),
    "optimization.execution_accelerators.gpu_execution_accelerator.parameters": (
        TRT16,
        lambda c: c.tensorrt == {"trt_fp16_enable": "True"},
    ),
}
# These are honoured by refusing what is wrong; `input.allow_ragged_batch` by `parameters.ragged`.
CHECKED = {
    "name": 'name: "another"',
    "platform": 'platform: "tensorrt_plan"',
    "backend": 'backend: "pytorch"',
    "instance_group.kind": "instance_group [{ kind: KIND_MODEL }]",
    "max_batch_size": "max_batch_size: 70000",
    "default_model_filename": 'default_model_filename: "../../secret.onnx"',
    "a file's name that would be obeyed": 'default_model_filename: "a\\nb.onnx"',
    "output.label_filename": 'output [{ name: "y" label_filename: "../../../etc/passwd" }]',
    "model_warmup.inputs": WARM % f'{FP32} input_data_file: "../../x"',
    "parameters": 'parameters { key: "ragged" value: { string_value: "maybe" } }',
    "version_policy.specific.versions": "version_policy { specific {} }",
    "a file that is no configuration": "max_batch_size: eight",
    "a field of no known schema": "teleport { }",
}


@pytest.mark.parametrize("path", HONOURED)
def test_a_field_that_is_honoured_has_its_effect(tmp_path, path):
    text, effect = HONOURED[path]
    assert effect(read_config(lay_out(tmp_path / "b", text)))
    plain = read_config(lay_out(tmp_path / "a", 'name: "m"'))
    try:
        same = effect(plain)
    except (AttributeError, IndexError):
        same = False
    assert not same, "the check holds without the field"


@pytest.mark.parametrize("field", CHECKED)
def test_a_field_with_a_value_that_cannot_be_honoured_is_refused(tmp_path, field):
    with pytest.raises(ModelNotReady, match=r"config\.pbtxt"):
        read_config(lay_out(tmp_path, CHECKED[field]))


def test_every_rule_has_its_test():
    tested = set(HONOURED) | set(CHECKED) | {"input.allow_ragged_batch"}
    # What the model declares about its distributions has tests of its own.
    assert set(of(Action.HONOURED)) - tested == set()


def test_a_configuration_of_more_than_a_mebibyte_is_refused_unread(tmp_path):
    folder = lay_out(tmp_path, "# " + "x" * (1 << 20))
    with pytest.raises(ModelNotReady, match="1 MiB"):
        read_config(folder)


async def test_the_configuration_limits_rows_and_labels_classes(tmp_path):
    folder = lay_out(tmp_path, BATCHED.replace("dims: [2]", 'dims: [2] label_filename: "l.txt"'))
    (folder / "l.txt").write_text("well\nseptic\n")
    async with serving(tmp_path) as node:
        with pytest.raises(InputInvalid, match="at most 8 rows"):
            await node.infer("m", None, request((9, 3)))
        wanted = RequestedOutput(name="y", parameters={"classification": 1})
        answer = await node.infer("m", None, request((2, 3), [wanted]))
        assert answer.outputs[0].datatype == "BYTES"
        assert [text[0].split(b":")[1:] for text in answer.outputs[0].array] == [[b"1", b"septic"]] * 2


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a\u2028b\x85c\x0cd\x0be\x1cf\ng\n", ("a\u2028b\x85c\x0cd\x0be\x1cf", "g")),
        ("a\r\nb\r\n", ("a", "b")),
        ("a\rb\nc", ("a\rb", "c")),
        ("a\n\nc\n\n", ("a", "", "c", "")),
        ("", ()),
    ],
)
async def test_labels_are_lines_and_only_a_line_feed_ends_one(tmp_path, text, labels):
    folder = lay_out(tmp_path, BATCHED.replace("dims: [2]", 'dims: [2] label_filename: "l.txt"'))
    (folder / "l.txt").write_bytes(text.encode())
    async with serving(tmp_path) as node:
        assert node.loaded()[0].labels["y"] == labels


async def test_a_configuration_that_contradicts_its_model_is_reported_and_others_serve(tmp_path):
    lay_out(tmp_path, BATCHED.replace("dims: [3]", "dims: [4]"), name="wrong")
    lay_out(tmp_path, BATCHED, name="right")
    async with serving(tmp_path) as node:
        assert "dims of x" in states(node)["wrong", "1"]
        assert not node.ready
        assert (await node.infer("right", None, request())).model_version == "1"


async def test_a_folder_whose_name_no_model_can_have_is_reported_with_the_rule(tmp_path):
    lay_out(tmp_path)
    names = ["my model", "_m", "m\u00fcller", "m" * 129, "a\nREADY\x1b[2K\u202e", ".git", "lost+found"]
    for name in names:
        lay_out(tmp_path, name=name)
    lay_out(tmp_path, name="b\udcff")
    async with serving(tmp_path) as node:
        found = states(node)
        assert found.pop(("m", "1")) == "READY"
        shown = {"my model", "_m", "m\u00fcller", "m" * 129, "a?READY?[2K?", "b?"}
        assert {name for name, _ in found} == shown
        assert all(why.startswith("unsupported: a model's name is") for why in found.values())
        assert not node.ready
        with pytest.raises(ModelNotReady, match="a model's name is"):
            await node.load("my model")
        with pytest.raises(ModelUnknown):
            await node.load("another model")


@pytest.mark.parametrize("what", ["dangling", "folder", "circle", "pipe"])
async def test_a_configuration_that_is_there_and_no_file_is_not_taken_for_none(tmp_path, what):
    folder = lay_out(tmp_path)
    lay_out(tmp_path, name="right")
    path = folder / "config.pbtxt"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder / ("nothing" if what == "dangling" else "config.pbtxt"))
    async with serving(tmp_path) as node:
        assert states(node)["right", "1"] == "READY"
        assert states(node)["m", "1"] == "broken: config.pbtxt cannot be read"


@pytest.mark.parametrize("what", ["model", "version", "folder", "configuration", "labels"])
async def test_a_link_that_leads_out_of_the_repository_is_refused(tmp_path, what):
    elsewhere = lay_out(tmp_path / "elsewhere", BATCHED)
    (elsewhere / "l.txt").write_text("secret\n")
    root = tmp_path / "models"
    root.mkdir()
    if what == "folder":
        (root / "m").symlink_to(elsewhere)
    else:
        config = BATCHED.replace("dims: [2]", 'dims: [2] label_filename: "l.txt"')
        folder = lay_out(root, config if what == "labels" else "")
        link, target = {
            "model": (folder / "1/model.onnx", elsewhere / "1/model.onnx"),
            "version": (folder / "2", elsewhere / "1"),
            "configuration": (folder / "config.pbtxt", elsewhere / "config.pbtxt"),
            "labels": (folder / "l.txt", elsewhere / "l.txt"),
        }[what]
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    async with serving(root) as node:
        reasons = [reason for reason in states(node).values() if "symbolic link" in reason]
        assert len(reasons) == 1


async def test_a_link_inside_the_repository_is_served(tmp_path):
    folder = lay_out(tmp_path, versions=(1,))
    (folder / "2").symlink_to(folder / "1")
    async with serving(tmp_path) as node:
        assert (await node.infer("m", None, request())).model_version == "2"


async def test_loading_again_under_load_fails_no_request_and_mixes_no_answers(tmp_path):
    path = tmp_path / "m/1/model.onnx"
    constant_model(path, 1)
    async with serving(tmp_path) as node:
        seen, stop = [], asyncio.Event()

        async def caller():
            while not stop.is_set():
                answer = await node.infer("m", None, request((4, 3)))
                values = set(answer.outputs[0].array.ravel().tolist())
                assert len(values) == 1
                seen.append(values.pop())
                await asyncio.sleep(0)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for value in (2, 3, 4):
            constant_model(path, value)
            await node.load("m")
            assert (await node.infer("m", None, request())).outputs[0].array[0, 0] == value
        path.write_bytes(b"broken")
        with pytest.raises(ModelNotReady, match="broken"):
            await node.load("m")
        # What cannot be loaded again goes on as it was, and the index says why.
        assert (await node.infer("m", None, request())).outputs[0].array[0, 0] == 4
        assert states(node)["m", "1"].startswith("broken")
        stop.set()
        await asyncio.gather(*callers)
        assert seen == sorted(seen)
        assert set(seen) >= {1.0, 4.0}


async def test_unloading_finishes_what_was_taken_and_refuses_what_comes(tmp_path):
    lay_out(tmp_path)
    async with serving(tmp_path) as node:
        taken = [asyncio.create_task(node.infer("m", None, request())) for _ in range(20)]
        await asyncio.sleep(0)
        await node.unload("m")
        assert len(await asyncio.gather(*taken)) == 20
        with pytest.raises(ModelNotReady):
            await node.infer("m", None, request())
        assert states(node) == {("m", "1"): "unloaded"}
        assert node.ready
        await node.load("m")
        assert (await node.infer("m", None, request())).model_version == "1"
        with pytest.raises(ModelUnknown):
            await node.load("../m")


async def test_a_version_is_warmed_up_before_it_serves_and_the_old_one_serves_meanwhile(
    tmp_path, monkeypatch
):
    folder = lay_out(tmp_path, WARM % f"{FP32} zero_data: true")
    begun, go_on = threading.Event(), threading.Event()
    warm_up = loading.warm_up

    async with serving(tmp_path) as node:
        rows = []

        def slowly(warmup, session, contract, names):
            begun.set()
            assert go_on.wait(30)
            run = session.run
            session.run = lambda feed, names: rows.append(len(feed["x"])) or run(feed, names)
            warm_up(warmup, session, contract, names)
            session.run = run

        monkeypatch.setattr(loading, "warm_up", slowly)
        linear_model(folder / "2/model.onnx")
        change = asyncio.create_task(node.load("m"))
        await asyncio.to_thread(begun.wait, 30)
        assert (await node.infer("m", None, request())).model_version == "1"
        with pytest.raises(ModelUnknown):
            await node.infer("m", "2", request())
        go_on.set()
        await change
        assert rows == [2, 2, 2]
        assert (await node.infer("m", None, request())).model_version == "2"


async def test_a_decoupled_model_answers_each_step_with_its_own_output_fed_back(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
    )
    save(graph, tmp_path / "m/1/model.onnx")
    (tmp_path / "m/config.pbtxt").write_text(STEPS)
    async with serving(tmp_path) as node:
        answers = [answer async for answer in node.stream("m", None, request())]
        assert [answer.outputs[0].array[0, 0] for answer in answers] == [2, 4, 8, 16]
        assert [a.parameters["triton_final_response"] for a in answers] == [False] * 3 + [True]
        with pytest.raises(InputInvalid, match="ask for a stream"):
            await node.infer("m", None, request())
        with pytest.raises(InputInvalid, match="steps must be 1 to 4"):
            await anext(node.stream("m", None, request(steps=5)))


async def test_padding_changes_no_answer(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "length"])],
    )
    save(graph, tmp_path / "m/1/model.onnx")
    pad = 'parameters { key: "ragged" value: { string_value: "pad" } }'
    (tmp_path / "m/config.pbtxt").write_text(pad)
    async with serving(tmp_path) as node:
        answers = await asyncio.gather(*(node.infer("m", None, request((1, n))) for n in (4, 7, 5)))
        for n, answer in zip((4, 7, 5), answers, strict=True):
            assert answer.outputs[0].array.tolist() == [[2.0] * n]
        assert node.statistics("m")[0].execution_count == 1


async def test_a_model_that_asks_for_a_gpu_is_refused_where_none_works(tmp_path):
    from inference_node.runtime import NVIDIA_CONTROL

    if NVIDIA_CONTROL.exists():
        pytest.skip("this machine has a GPU")
    lay_out(tmp_path, "instance_group [{ kind: KIND_GPU }]", name="gpu")
    lay_out(tmp_path, TRT % "", name="trt")
    lay_out(tmp_path, "instance_group [{ kind: KIND_CPU count: 2 }]", name="cpu")
    async with serving(tmp_path) as node:
        assert "asks for a GPU" in states(node)["gpu", "1"]
        assert "asks for TensorRT" in states(node)["trt", "1"]
        parameters = node.metadata("cpu", None).parameters
        assert parameters["execution_provider"] == "CPUExecutionProvider"
