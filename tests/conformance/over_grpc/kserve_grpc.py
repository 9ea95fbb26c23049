"""KServe's own gRPC client at work, in its own environment; says in JSON what it was answered."""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

MODEL = "identity-fp32"
VALUES = np.array([[-0.5, 1.25, 3.0]], np.float32)


def request(*, typed: bool) -> InferRequest:
    tensor = InferInput("x", [1, 3], "FP32", data=VALUES.ravel().tolist() if typed else None)
    if not typed:
        tensor.set_data_from_numpy(VALUES, binary_data=True)
    return InferRequest(model_name=MODEL, infer_inputs=[tensor], request_id="7")


async def code_of(answering) -> str:
    try:
        await answering
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


async def main(address: str, headers: dict[str, str]) -> None:
    facts = tuple(headers.items())
    async with InferenceGRPCClient(address, timeout=20) as client:
        answers = [await client.infer(request(typed=typed), headers=facts) for typed in (True, False)]
        report = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready(MODEL, headers=facts),
            "other ready": await client.is_model_ready("nothing", headers=facts),
            "outputs": [answer.outputs[0].as_numpy().tolist() for answer in answers],
            "ids": [answer.id for answer in answers],
            "placements": [answer.parameters["bedside_placement"].string_param for answer in answers],
            "stranger": await code_of(client.infer(request(typed=True))),
        }
    sys.stdout.write(json.dumps(report))


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
