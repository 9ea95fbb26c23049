"""ONNX Runtime sessions: which hardware they use, what a model takes and gives, how it is run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from inference_node.errors import ExecutionFailed, ModelNotReady, RepositoryError
from inference_node.oip import DTYPES, Array, ModelMetadata, TensorMetadata
from inference_node.settings import Device

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
NVIDIA_CONTROL: Final = Path("/dev/nvidiactl")

_DATATYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_STANDARD_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_ERRORS_ONLY: Final = 3


def choose_provider(device: Device) -> str:
    """Return the execution provider to use.

    Raises:
        RepositoryError: if a GPU is insisted on and none works.
    """
    if device is Device.CPU or not _cuda_works():
        if device is Device.CUDA:
            raise RepositoryError(
                'device = "cuda" but ONNX Runtime finds no working GPU; use "auto" or "cpu"'
            )
        return CPU
    return CUDA


def _cuda_works() -> bool:
    # The provider is compiled in even where there is no GPU. Only a session tells whether it works,
    # and complains loudly where there is no driver at all: look for that first.
    if CUDA not in ort.get_available_providers() or not NVIDIA_CONTROL.exists():
        return False
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "probe",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 10
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY + 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CUDA, CPU])
    except RuntimeError:
        return False
    return CUDA in session.get_providers()


class Session:
    """One loaded model version."""

    def __init__(self, path: Path, *, provider: str, intra_op_threads: int) -> None:
        """Load the model at `path`.

        Raises:
            ModelNotReady: with the reason, if it is not a model that may be run.
        """
        _refuse_unsafe(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        # ONNX Runtime's warnings and errors can quote tensor values and paths.
        options.log_severity_level = _ERRORS_ONLY + 1
        providers = [provider] if provider == CPU else [provider, CPU]
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ModelNotReady("broken: ONNX Runtime cannot load model.onnx") from error
        self.provider = provider
        self.inputs = tuple(_metadata(value) for value in self._session.get_inputs())
        self.outputs = tuple(_metadata(value) for value in self._session.get_outputs())
        self.output_names = tuple(output.name for output in self.outputs)
        self._run = self._session.run

    @property
    def batches(self) -> bool:
        """Whether rows of several requests may be run together: every first dimension is open."""
        values = (*self.inputs, *self.outputs)
        return all(value.shape and value.shape[0] == -1 for value in values)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Return the named outputs for one batch of inputs.

        Raises:
            ExecutionFailed: if the runtime fails; its message is withheld, it may quote values.
        """
        try:
            results: list[Array] = self._run(outputs, inputs)
        except Exception:  # noqa: BLE001 the runtime raises many types of its own
            # `from None`: a traceback that shows the cause would show its message.
            raise ExecutionFailed("the model could not be run on these inputs") from None
        return results

    def warm_up(self, rows: int) -> None:
        """Run once on zeros, so that the first request does not pay for lazy set-up."""
        feed = {value.name: _zeros(value, rows if self.batches else 1) for value in self.inputs}
        self.run(feed, self.output_names)

    def metadata(self, name: str, versions: tuple[str, ...]) -> ModelMetadata:
        """Return what the model takes and gives."""
        return ModelMetadata(
            name=name,
            versions=versions,
            platform="onnxruntime_onnx",
            inputs=self.inputs,
            outputs=self.outputs,
            parameters={"execution_provider": self.provider},
        )


def _metadata(value: ort.NodeArg) -> TensorMetadata:
    datatype = _DATATYPES.get(value.type)
    if datatype is None:
        raise ModelNotReady("unsupported: the model has an input or output that is no tensor")
    shape = tuple(
        dimension if isinstance(dimension, int) and dimension >= 0 else -1
        for dimension in value.shape or ()
    )
    return TensorMetadata(name=value.name, datatype=datatype, shape=shape)


def _zeros(value: TensorMetadata, rows: int) -> Array:
    shape = [
        dimension if dimension >= 0 else (rows if position == 0 else 1)
        for position, dimension in enumerate(value.shape)
    ]
    if value.datatype == "BYTES":
        return np.full(math.prod(shape), "", dtype=np.object_).reshape(shape)
    return np.zeros(shape, dtype=DTYPES[value.datatype])


def _refuse_unsafe(path: Path) -> None:
    """Refuse a model that would read other files or run code that does not come with the runtime."""
    try:
        model: Any = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelNotReady("broken: model.onnx is not an ONNX model") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelNotReady("unsafe: the model keeps its weights in other files")
    domains = {opset.domain for opset in model.opset_import}
    if not domains <= _STANDARD_DOMAINS:
        raise ModelNotReady("unsafe: the model needs custom operators")
