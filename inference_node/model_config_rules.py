"""What is done with every field of a `config.pbtxt`: honoured, ignored or refused.

A field that is not listed is refused, so that a field of a later Triton is never passed over in
silence. `docs/reference/model-repository.md` shows this table; a test holds the two together.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Action(StrEnum):
    """What becomes of a field: a field is ignored only if no answer depends on it."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


class Rule(NamedTuple):
    """What is done with a field, and what to know about it."""

    action: Action
    note: str


_H, _I, _R = Action.HONOURED, Action.IGNORED, Action.REFUSED

RULES: Final[Mapping[str, Rule]] = {
    "name": Rule(_H, "must be the folder's name"),
    "platform": Rule(_H, "`onnxruntime_onnx` only"),
    "backend": Rule(_H, "`onnxruntime` only"),
    "runtime": Rule(_I, "the node has one runtime"),
    "version_policy.latest.num_versions": Rule(_H, "the highest n; 1 where no policy is given"),
    "version_policy.all": Rule(_H, "every version"),
    "version_policy.specific.versions": Rule(_H, "one or more; one that is missing is reported"),
    "max_batch_size": Rule(
        _H, "above 0: dims leave out the batch dimension; a larger request is refused"
    ),
    "input.name": Rule(_H, "all of the model's inputs, if any is given"),
    "input.data_type": Rule(_H, "checked against the model"),
    "input.dims": Rule(_H, "checked against the model; may fix a dimension that the model leaves open"),
    "input.format": Rule(_I, "describes the input only"),
    "input.allow_ragged_batch": Rule(
        _H,
        "differing shapes are always taken, and run as `parameters.ragged` says; a model of "
        "shape [-1], which takes requests end to end, is refused",
    ),
    "input.reshape": Rule(
        _H, "requests bring `dims`, the model has this shape: see [shapes](#shapes-that-differ)"
    ),
    "input.is_shape_tensor": Rule(_R, "belongs to TensorRT engines"),
    "input.optional": Rule(_R, "every input is required"),
    "input.is_non_linear_format_io": Rule(_R, "belongs to TensorRT engines"),
    "output.name": Rule(_H, "only these are given, in this order"),
    "output.data_type": Rule(_H, "checked against the model"),
    "output.dims": Rule(_H, "checked against the model"),
    "output.label_filename": Rule(
        _H,
        "one label a line, ended by a line feed, for classification; a name without folders, of a file "
        "in the model's folder",
    ),
    "output.reshape": Rule(
        _H, "the model gives this shape, answers have `dims`: see [shapes](#shapes-that-differ)"
    ),
    "output.is_shape_tensor": Rule(_R, "belongs to TensorRT engines"),
    "output.is_non_linear_format_io": Rule(_R, "belongs to TensorRT engines"),
    "batch_input": Rule(_R, "would change what the model is given"),
    "batch_output": Rule(_R, "would change how answers are cut"),
    "optimization.graph": Rule(_I, "ONNX Runtime optimizes fully"),
    "optimization.priority": Rule(_I, "models share the machine evenly"),
    "optimization.cuda": Rule(_I, "no CUDA graphs"),
    "optimization.execution_accelerators.gpu_execution_accelerator.name": Rule(
        _H, "`tensorrt` or `cuda`; another is refused"
    ),
    "optimization.execution_accelerators.gpu_execution_accelerator.parameters": Rule(
        _H, "`precision_mode` FP32 or FP16, `max_workspace_size_bytes`; another is refused"
    ),
    "optimization.execution_accelerators.cpu_execution_accelerator": Rule(
        _I, "ONNX Runtime's CPU provider runs the model"
    ),
    "optimization.input_pinned_memory": Rule(_I, "a matter of speed"),
    "optimization.output_pinned_memory": Rule(_I, "a matter of speed"),
    "optimization.gather_kernel_buffer_threshold": Rule(_I, "a matter of speed"),
    "optimization.eager_batching": Rule(_I, "a matter of speed"),
    "dynamic_batching.preferred_batch_size": Rule(_I, "a batch takes what waits"),
    "dynamic_batching.max_queue_delay_microseconds": Rule(_H, "how long a batch may wait for company"),
    "dynamic_batching.preserve_ordering": Rule(_I, "every request has a response of its own"),
    "dynamic_batching.priority_levels": Rule(_H, "1 is the highest"),
    "dynamic_batching.default_priority_level": Rule(
        _H, "for a request with no priority, or none of these"
    ),
    "dynamic_batching.default_queue_policy.timeout_action": Rule(
        _H, "REJECT answers at once; DELAY runs the request after others of its priority"
    ),
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": Rule(_H, "0 is none"),
    "dynamic_batching.default_queue_policy.allow_timeout_override": Rule(
        _H, "a request's own `timeout` may be shorter; true where no policy is given"
    ),
    "dynamic_batching.default_queue_policy.max_queue_size": Rule(_H, "0 takes the node's"),
    "dynamic_batching.priority_queue_policy": Rule(_R, "one queue policy holds for all priorities"),
    "sequence_batching": Rule(_R, "requests are independent of each other"),
    "ensemble_scheduling": Rule(_R, "the caller, or one ONNX file, joins models"),
    "instance_group.name": Rule(_I, "a name only"),
    "instance_group.kind": Rule(
        _H,
        "`KIND_CPU`, `KIND_GPU` or `KIND_AUTO`, the same in all groups; `KIND_MODEL` is refused",
    ),
    "instance_group.count": Rule(
        _H,
        "batches that may run at once, 64 at most in all groups; they share the weights",
    ),
    "instance_group.gpus": Rule(_I, "the first GPU runs every model"),
    "instance_group.rate_limiter": Rule(_I, "the count is the limit"),
    "instance_group.host_policy": Rule(_I, "a matter of speed"),
    "instance_group.profile": Rule(_R, "belongs to TensorRT engines"),
    "instance_group.passive": Rule(_R, "every instance serves"),
    "instance_group.secondary_devices": Rule(_R, "belongs to other backends"),
    "default_model_filename": Rule(
        _H,
        "instead of `model.onnx`; a name without folders, of one file: a folder of several is refused",
    ),
    "cc_model_filenames": Rule(_R, "would choose another file by GPU"),
    "metric_tags": Rule(_I, "metrics carry the node's own tags"),
    "parameters": Rule(
        _H,
        "`feedback`, `steps`, `ragged` (separate, refuse, pad), `intra_op_thread_count` (0 "
        "to 256; 0 is ONNX Runtime's own choice), `distribution.*`; others are ignored",
    ),
    "model_warmup.name": Rule(_I, "a name only"),
    "model_warmup.batch_size": Rule(_H, "rows; one sample serves them all"),
    "model_warmup.count": Rule(_H, "how often the sample runs, once if 0"),
    "model_warmup.inputs": Rule(
        _H,
        "`zero_data`, `random_data`, or `input_data_file`, a name without folders, of a file "
        "in the model's `warmup` folder: one sample, or one for each row",
    ),
    "model_operations": Rule(_R, "custom operators are code that does not come with the runtime"),
    "model_transaction_policy.decoupled": Rule(
        _H, "needs `parameters.feedback` and `parameters.steps`"
    ),
    "model_repository_agents": Rule(
        _R, "release documents do this; an agent's check must not be passed over"
    ),
    "response_cache": Rule(_I, "the gateway caches, where policy allows it"),
    "model_metrics": Rule(_I, "metrics have fixed buckets"),
}
"""By the field's path in Triton's ModelConfig; a message stands for all that is in it."""
