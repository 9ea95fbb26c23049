"""ONNX Runtime on the device, imported only when a model runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from bedside_client.datatypes import Array, converted, dtype_in_runtime
from bedside_client.errors import ModelFailed, RuntimeMissing

_SILENT = 4


class LocalModel:
    """One model, loaded from verified bytes."""

    def __init__(self, data: bytes) -> None:
        """Load the model.

        Raises:
            RuntimeMissing: if ONNX Runtime is not installed.
            ModelFailed: if it cannot load the model.
        """
        try:
            import onnxruntime as ort  # noqa: PLC0415 an app that never runs models need not pay for it
        except ImportError as error:
            raise RuntimeMissing(
                "install bedside-client[onnx] or bedside-client[onnx-gpu] to run models here"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        # The runtime's own messages can quote values.
        options.log_severity_level = _SILENT
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelFailed("the model cannot be loaded on this device") from error
        # The session keeps the bytes for as long as it lives, to be opened again, which it never
        # is: as much memory as the weights take. It has no public way to let go of them.
        self._session._model_bytes = None  # noqa: SLF001 as above
        self._dtypes = {
            value.name: dtype_in_runtime(value.type) for value in self._session.get_inputs()
        }
        self.inputs = tuple(self._dtypes)
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Return the outputs by name, all if none are named.

        Inputs become what the model takes, if they fit: float64 is rounded to float32, and 1.5 is no
        integer.

        Raises:
            ModelFailed: if the model does not run on these inputs, or gives something other than
                tensors; the reason is withheld, since it can quote values.
        """
        names = list(outputs or self.outputs)
        try:
            feed = {name: self._as_taken(name, value) for name, value in inputs.items()}
            values = self._session.run(names, feed)
        except Exception:  # noqa: BLE001 the runtime raises many types of its own
            raise ModelFailed("the model could not be run on these inputs") from None
        if not all(isinstance(value, np.ndarray) for value in values):
            raise ModelFailed("the model gives something other than tensors")
        return dict(zip(names, values, strict=True))

    def _as_taken(self, name: str, value: Array) -> Array:
        array, dtype = np.asarray(value), self._dtypes.get(name)
        return array if dtype is None else converted(array, dtype)
