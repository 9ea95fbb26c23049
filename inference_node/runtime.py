"""ONNX Runtime sessions: which hardware they use, what a model takes and gives, how it is run."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort

from inference_node.bfloat16 import run_with_bfloat16
from inference_node.errors import ExecutionFailed, ModelNotReady, RepositoryError
from inference_node.model_config import Hardware
from inference_node.model_file import safe_operators
from inference_node.oip import DTYPES, Array, TensorMetadata
from inference_node.reshape import Reshape, run_reshaped
from inference_node.settings import Device

CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
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
_ERRORS_ONLY: Final = 3

# They measure one range over all that they are given, rows of other requests among it. The first is
# ONNX's, the others are what ONNX Runtime makes of it when it writes a model.
_ONE_RANGE: Final = {"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}


# A provider whose libraries are missing says so on standard error, before a session's options count.
ort.set_default_logger_severity(_ERRORS_ONLY + 1)


def choose_provider(device: Device) -> str:
    """Return the execution provider to use.

    Raises:
        RepositoryError: if a GPU or TensorRT is insisted on and does not work.
    """
    if device is Device.CPU:
        return CPU
    if device is Device.TENSORRT:
        if not works(TENSORRT):
            raise RepositoryError(
                'device = "tensorrt" but ONNX Runtime finds no working GPU with TensorRT; '
                'install TensorRT, or use "cuda", "auto" or "cpu"'
            )
        return TENSORRT
    if works(CUDA):
        return CUDA
    if device is Device.CUDA:
        raise RepositoryError(
            'device = "cuda" but ONNX Runtime finds no working GPU; use "auto" or "cpu"'
        )
    return CPU


def provider_for(hardware: Hardware, site: str, device: Device, *, tensorrt: bool) -> str:
    """Return the provider of one model whose configuration asks for `hardware`.

    Raises:
        ModelNotReady: if it asks for a GPU or TensorRT that does not work here.
    """
    if hardware is Hardware.CPU:
        return CPU
    if tensorrt or (hardware is Hardware.GPU and site == CPU):
        wanted = TENSORRT if tensorrt else CUDA
        if device is Device.CPU or not works(wanted):
            kind = "TensorRT" if tensorrt else "a GPU"
            raise ModelNotReady(f"config.pbtxt: asks for {kind}, and none works on this node")
        return wanted
    return site


@functools.cache
def works(provider: str) -> bool:
    """Whether a session really runs on a GPU provider; what works stays so while the process lives."""
    # The provider is compiled in even where there is no GPU. Only a session tells whether it works,
    # and complains loudly where there is no driver at all: look for that first.
    if provider not in ort.get_available_providers() or not NVIDIA_CONTROL.exists():
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
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider, CPU])
    except Exception:  # noqa: BLE001 the runtime raises many types of its own
        return False
    return provider in session.get_providers()


class Session:
    """One loaded model version."""

    def __init__(
        self,
        data: bytes,
        *,
        provider: str,
        intra_op_threads: int,
        tensorrt: Mapping[str, str] | None = None,
    ) -> None:
        """Load the model that `data` is, an ONNX file's bytes; `tensorrt` are options of that provider.

        Raises:
            ModelNotReady: with the reason, if it is not a model that may be run.
        """
        operators = safe_operators(data)
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        # ONNX Runtime's warnings and errors can quote tensor values and paths.
        options.log_severity_level = _ERRORS_ONLY + 1
        # Bytes that ONNX Runtime took for its own format would not be the model that was checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        providers = {
            CPU: [CPU],
            CUDA: [CUDA, CPU],
            TENSORRT: [(TENSORRT, dict(tensorrt or {})), CUDA, CPU],
        }[provider]
        try:
            self._session = ort.InferenceSession(data, options, providers=providers)
        except Exception as error:
            raise ModelNotReady("broken: ONNX Runtime cannot load the model file") from error
        # The session keeps the file's bytes for as long as it lives, to be opened again, which it never
        # is: as much memory as the weights take. It has no public way to let go of them.
        self._session._model_bytes = None  # noqa: SLF001 as above
        if provider not in self._session.get_providers():
            # ONNX Runtime goes on without a provider that does not start.
            raise ModelNotReady(f"unavailable: ONNX Runtime cannot run the model on {provider}")
        self.provider = provider
        self.mixes_rows = not operators.isdisjoint(_ONE_RANGE)
        """Whether a row's answer depends on the other rows that it runs with."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.inputs = tuple(_metadata(value) for value in inputs)
        self.outputs = tuple(_metadata(value) for value in outputs)
        self.symbols = {value.name: tuple(value.shape or ()) for value in (*inputs, *outputs)}
        """By input and output: the size of each dimension, or the name that the model gives it."""
        self._run = self._session.run
        if any(value.datatype == "BF16" for value in (*self.inputs, *self.outputs)):
            self._run = functools.partial(run_with_bfloat16, self._session)

    def reshape(self, inputs: Mapping[str, Reshape], outputs: Mapping[str, Reshape]) -> None:
        """Take and give these tensors, by name, in the shapes that are served from here on."""
        if inputs or outputs:
            self._run = functools.partial(run_reshaped, self._run, inputs, outputs)

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


def _metadata(value: ort.NodeArg) -> TensorMetadata:
    datatype = _DATATYPES.get(value.type)
    if datatype is None:
        raise ModelNotReady("unsupported: the model has an input or output that is no tensor")
    shape = tuple(
        dimension if isinstance(dimension, int) and dimension >= 0 else -1
        for dimension in value.shape or ()
    )
    return TensorMetadata(name=value.name, datatype=datatype, shape=shape)


def zeros(value: TensorMetadata, rows: int) -> Array:
    """Return a tensor that fits `value`: open dimensions are 1, the first of them `rows`."""
    shape = [
        dimension if dimension >= 0 else (rows if position == 0 else 1)
        for position, dimension in enumerate(value.shape)
    ]
    if value.datatype == "BYTES":
        return np.full(math.prod(shape), "", dtype=np.object_).reshape(shape)
    return np.zeros(shape, dtype=DTYPES[value.datatype])
