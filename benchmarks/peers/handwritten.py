"""What one would write by hand: FastAPI and ONNX Runtime; no authentication, policy or record."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
sessions = {
    path.name: ort.InferenceSession(
        str(path / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    for path in Path(os.environ["PEERS_MODELS"]).iterdir()
}


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


app = FastAPI()


@app.post("/v2/models/{model}/infer")
def infer(model: str, request: Request) -> dict[str, object]:
    tensor = request.inputs[0]
    x = np.asarray(tensor.data, dtype="float32").reshape(tensor.shape)
    y = sessions[model].run(None, {"x": x})[0]
    output = {"name": "y", "shape": list(y.shape), "datatype": "FP32", "data": y.ravel().tolist()}
    return {"model_name": model, "outputs": [output]}
