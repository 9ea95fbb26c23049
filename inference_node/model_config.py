"""Reads a model's `config.pbtxt`: Triton's ModelConfig, in protobuf text format.

The format belongs to protobuf's own parser and to Triton's published schema (`schema.py`).

What cannot be honoured is refused, so that a model is never served otherwise than its author wrote.
"""

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from msgspec import Struct

from inference_node.batch import QueuePolicy, Ragged
from inference_node.declared import Distribution, declared
from inference_node.errors import ModelNotReady
from inference_node.model_config_rules import RULES, Action
from inference_node.releases import MODEL_FILE
from inference_node.reshape import same_elements
from inference_node.schema import message_class

CONFIG_FILE: Final = "config.pbtxt"
WARMUP_FOLDER: Final = "warmup"
CONFIG_LIMIT_BYTES: Final = 1 << 20
INSTANCES_MAX: Final = 64
STEPS_MAX: Final = 100_000
THREADS_MAX: Final = 256
ROWS_MAX: Final = 65536


class Hardware(StrEnum):
    """Where a model asks to run: `site` leaves it to the node's settings."""

    SITE = "site"
    CPU = "cpu"
    GPU = "gpu"


class TensorConfig(Struct, frozen=True, kw_only=True):
    """An input or output as configured; an empty `datatype` or None for `dims` is the model's own.

    `dims` is the shape that is served and `reshape` the one that the model has, if it is another; both
    leave out the batch dimension of a model that batches.
    """

    name: str
    datatype: str
    dims: tuple[int, ...] | None
    reshape: tuple[int, ...] | None = None
    ragged: bool = False
    labels: Path | None = None


class WarmupInput(Struct, frozen=True, kw_only=True):
    """One input of a warm-up sample; neither random nor from a file, it is zeros."""

    datatype: str
    dims: tuple[int, ...]
    random: bool = False
    file: Path | None = None


class Warmup(Struct, frozen=True, kw_only=True):
    """A sample to run before a version is ready; `rows` 0 leaves the batch dimension out."""

    rows: int
    count: int
    inputs: Mapping[str, WarmupInput]


class Iteration(Struct, frozen=True, kw_only=True):
    """A model that is run step by step; `feedback` maps an output to the input it becomes."""

    feedback: Mapping[str, str]
    steps: int


class ModelConfig(Struct, frozen=True, kw_only=True):
    """What of a `config.pbtxt` is honoured; `max_batch_size` None leaves batching to the model.

    `latest` 0 stands for all versions. `fields` are those of the file, for the model configuration
    extension.
    """

    model_file: str = MODEL_FILE
    latest: int = 0
    specific: tuple[int, ...] = ()
    max_batch_size: int | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    queue: QueuePolicy | None = None
    ragged: Ragged = Ragged.SEPARATE
    hardware: Hardware = Hardware.SITE
    instances: int = 1
    tensorrt: Mapping[str, str] | None = None
    intra_op_threads: int | None = None
    warmups: tuple[Warmup, ...] = ()
    iteration: Iteration | None = None
    distributions: tuple[Distribution, ...] = ()
    fields: Mapping[str, Any] = {}


_ModelConfig: Final = message_class("ModelConfig")


def read_config(folder: Path) -> ModelConfig:
    """Return the configuration of the model in `folder`; the defaults if it has no `config.pbtxt`.

    Raises:
        ModelNotReady: naming the field, if the file cannot be honoured; if it is no file.
        OSError: if it cannot be read.
    """
    path = folder / CONFIG_FILE
    if not os.path.lexists(path):
        return ModelConfig()
    if not path.is_file():
        raise ModelNotReady("broken: config.pbtxt cannot be read")
    if path.stat().st_size > CONFIG_LIMIT_BYTES:
        raise _refused("the file is larger than 1 MiB")
    message = _ModelConfig()
    try:
        # Editors put a byte order mark in front, which nobody sees.
        text_format.Parse(path.read_text(encoding="utf-8-sig"), message)
    except UnicodeDecodeError as error:
        raise _refused("the file is not UTF-8 text") from error
    except text_format.ParseError as error:
        # Its message quotes the file.
        line, column = error.GetLine(), error.GetColumn()
        place = "" if line is None else f": line {line}, column {column}"
        raise _refused(
            f"the file is not Triton's ModelConfig in protobuf text format{place}"
        ) from error
    for field in _set_fields(message):
        rule = RULES.get(field)
        if rule is None:
            raise _refused(f"{field} is not known to this node")
        if rule.action is Action.REFUSED:
            raise _refused(f"{field} is not served: {rule.note}")
    return _config(message, folder)


def files_of(config: ModelConfig) -> list[Path]:
    """Return the files that a configuration names, besides the model."""
    labels = [output.labels for output in config.outputs]
    samples = [sample.file for warmup in config.warmups for sample in warmup.inputs.values()]
    return [path for path in (*labels, *samples) if path is not None]


def _refused(reason: str) -> ModelNotReady:
    return ModelNotReady(f"config.pbtxt: {reason}")


def _set_fields(message: Any, prefix: str = "") -> Iterator[str]:  # noqa: ANN401
    for field, value in message.ListFields():
        path = prefix + field.name
        if path in RULES or field.message_type is None or field.message_type.GetOptions().map_entry:
            yield path
            continue
        for part in value if field.is_repeated else (value,):
            yield from _set_fields(part, f"{path}.")


def _fields(message: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what is set, under the schema's own names; protobuf's JSON makes strings of int64."""
    fields: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            nested = field.message_type.fields_by_name["value"].message_type is not None
            fields[field.name] = {
                key: _fields(value[key]) if nested else value[key] for key in sorted(value)
            }
        elif field.is_repeated:
            fields[field.name] = [_plain(field, part) for part in value]
        else:
            fields[field.name] = _plain(field, value)
    return fields


def _plain(field: Any, value: Any) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _config(message: Any, folder: Path) -> ModelConfig:  # noqa: ANN401
    if message.name and message.name != folder.name:
        raise _refused("name is not the name of the model's folder")
    if message.platform not in ("", "onnxruntime_onnx"):
        raise _refused("platform must be onnxruntime_onnx")
    if message.backend not in ("", "onnxruntime"):
        raise _refused("backend must be onnxruntime")
    if not 0 <= message.max_batch_size <= ROWS_MAX:
        raise _refused(f"max_batch_size must be 0 to {ROWS_MAX}")
    described = bool(message.input and message.output)
    policy = message.version_policy.WhichOneof("policy_choice")
    if policy == "specific" and not message.version_policy.specific.versions:
        raise _refused("version_policy.specific must name a version; with none, Triton serves none")
    hardware, instances = _instances(message)
    parameters = {key: value.string_value for key, value in message.parameters.items()}
    decoupled = message.model_transaction_policy.decoupled
    return ModelConfig(
        model_file=_plain_name("default_model_filename", message.default_model_filename or MODEL_FILE),
        latest={"all": 0, "latest": message.version_policy.latest.num_versions or 1}.get(policy, 1),
        specific=tuple(message.version_policy.specific.versions),
        # Triton completes a configuration that does not describe both sides of its model.
        max_batch_size=message.max_batch_size if message.max_batch_size or described else None,
        inputs=tuple(_tensor(value, folder) for value in message.input),
        outputs=tuple(_tensor(value, folder) for value in message.output),
        queue=_queue(message.dynamic_batching) if message.HasField("dynamic_batching") else None,
        ragged=_ragged(parameters.get("ragged", Ragged.SEPARATE)),
        hardware=hardware,
        instances=instances,
        tensorrt=_tensorrt(message.optimization.execution_accelerators.gpu_execution_accelerator),
        intra_op_threads=(
            _number("intra_op_thread_count", parameters["intra_op_thread_count"], 0, THREADS_MAX)
            if "intra_op_thread_count" in parameters
            else None
        ),
        warmups=tuple(_warmup(sample, folder) for sample in message.model_warmup),
        iteration=_iteration(parameters) if decoupled else None,
        distributions=declared(parameters),
        fields=_fields(message),
    )


def _plain_name(field: str, name: str) -> str:
    if Path(name).name != name or name in (".", "..") or not name.isprintable():
        raise _refused(f"{field} must be a name without folders or control characters")
    return name


def _datatype(field: Any) -> str:  # noqa: ANN401
    name: str = (
        field.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[field.data_type].name
    )
    return {"TYPE_INVALID": "", "TYPE_STRING": "BYTES"}.get(name, name.removeprefix("TYPE_"))


def _tensor(field: Any, folder: Path) -> TensorConfig:  # noqa: ANN401
    labels = getattr(field, "label_filename", "")
    dims = tuple(field.dims)
    reshape = tuple(field.reshape.shape) if field.HasField("reshape") else None
    for key, shape in (("dims", dims), ("reshape", reshape or ())):
        if any(size < 1 and size != -1 for size in shape):
            raise _refused(f"{key} of {field.name} must be 1 or more, or -1 for any size")
    if reshape is not None and not dims:
        raise _refused(f"reshape of {field.name} needs dims")
    if reshape is not None and not same_elements(dims, reshape):
        raise _refused(
            f"reshape of {field.name} is {list(reshape)} and its dims {list(dims)}: they must have the "
            "same number of elements before, between and after each -1"
        )
    return TensorConfig(
        name=field.name,
        datatype=_datatype(field),
        dims=dims or None,
        reshape=reshape,
        ragged=getattr(field, "allow_ragged_batch", False),
        labels=folder / _plain_name(f"label_filename of {field.name}", labels) if labels else None,
    )


def _queue(field: Any) -> QueuePolicy:  # noqa: ANN401
    policy = field.default_queue_policy
    levels, default = field.priority_levels, field.default_priority_level
    if levels and not 0 < default <= levels:
        raise _refused("dynamic_batching.default_priority_level must be 1 to priority_levels")
    return QueuePolicy(
        max_queue_delay_s=field.max_queue_delay_microseconds / 1e6,
        priority_levels=levels,
        default_priority=default,
        timeout_s=policy.default_timeout_microseconds / 1e6,
        delays_late=policy.timeout_action == policy.DELAY,
        timeout_override=policy.allow_timeout_override or not field.HasField("default_queue_policy"),
        max_queue_size=policy.max_queue_size or None,
    )


def _ragged(value: str) -> Ragged:
    try:
        return Ragged(value)
    except ValueError:
        raise _refused("parameters.ragged must be separate, refuse or pad") from None


def _instances(message: Any) -> tuple[Hardware, int]:  # noqa: ANN401
    kinds = set()
    count = 0
    for group in message.instance_group:
        if group.kind == group.KIND_MODEL:
            raise _refused("instance_group.kind must be KIND_CPU, KIND_GPU or KIND_AUTO")
        kinds.add(
            {group.KIND_CPU: Hardware.CPU, group.KIND_GPU: Hardware.GPU}.get(group.kind, Hardware.SITE)
        )
        count += (group.count or 1) if group.count >= 0 else INSTANCES_MAX + 1
    if len(kinds) > 1:
        raise _refused("instance_group.kind must be the same in all: one session serves all instances")
    if count > INSTANCES_MAX:
        raise _refused(f"instance_group.count must be 1 to {INSTANCES_MAX} in all")
    return (kinds.pop() if kinds else Hardware.SITE), max(count, 1)


def _tensorrt(accelerators: Any) -> Mapping[str, str] | None:  # noqa: ANN401
    chosen: dict[str, str] | None = None
    for accelerator in accelerators:
        if accelerator.name == "cuda":
            continue
        if accelerator.name != "tensorrt":
            raise _refused("gpu_execution_accelerator must be tensorrt or cuda")
        chosen = {}
        for key, value in accelerator.parameters.items():
            if key == "precision_mode" and value in ("FP32", "FP16"):
                chosen["trt_fp16_enable"] = str(value == "FP16")
            elif key == "max_workspace_size_bytes" and value.isdigit():
                chosen["trt_max_workspace_size"] = value
            else:
                raise _refused(
                    "tensorrt takes precision_mode FP32 or FP16, and max_workspace_size_bytes"
                )
    return chosen


def _warmup(sample: Any, folder: Path) -> Warmup:  # noqa: ANN401
    return Warmup(
        rows=sample.batch_size,
        count=sample.count or 1,
        inputs={
            name: WarmupInput(
                datatype=_datatype(field),
                dims=tuple(field.dims),
                random=field.random_data,
                file=_warmup_file(folder, name, field.input_data_file),
            )
            for name, field in sample.inputs.items()
        },
    )


def _warmup_file(folder: Path, name: str, file: str) -> Path | None:
    field = f"model_warmup.inputs.input_data_file of {name}"
    return folder / WARMUP_FOLDER / _plain_name(field, file) if file else None


def _iteration(parameters: Mapping[str, str]) -> Iteration:
    feedback: dict[str, str] = {}
    for pair in parameters.get("feedback", "").split(","):
        output, _, fed = pair.strip().partition(":")
        if not output or not fed or output in feedback or fed in feedback.values():
            raise _refused(
                "a decoupled model needs parameters.feedback, as output:input pairs that differ"
            )
        feedback[output] = fed
    steps = _number("steps", parameters.get("steps", ""), 1, STEPS_MAX)
    return Iteration(feedback=feedback, steps=steps)


def _number(name: str, text: str, least: int, most: int) -> int:
    # A number of thousands of digits is an error of Python's own.
    short = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    number = int(text) if short else -1
    if not least <= number <= most:
        raise _refused(f"parameters.{name} must be {least} to {most}")
    return number
