"""Models for a real MLServer: numpy in, numpy out. It is imported by MLServer's own Python."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Softmax(MLModel):
    """The tests' linear model: softmax(x @ w), and the inputs as a second output."""

    async def load(self) -> bool:
        self.weights = np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float32)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        z = np.exp(x @ self.weights)
        y = (z / z.sum(axis=-1, keepdims=True)).astype(np.float32)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("y", y), NumpyCodec.encode_output("x", x)],
        )


class Echo(MLModel):
    """Says again what it was sent, tensor by tensor; declares nothing of itself."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            id=payload.id,
            outputs=[
                ResponseOutput(name=own.name, shape=own.shape, datatype=own.datatype, data=own.data)
                for own in payload.inputs
            ],
        )


class Failing(MLModel):
    """Fails, and quotes what it was sent, as careless models do."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        raise ValueError(f"cannot use {payload.inputs[0].data.root}")
