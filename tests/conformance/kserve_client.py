"""Runs KServe's InferenceRESTClient against a gateway and prints what it got.

KServe's own Python runs it. It takes a JSON document on standard input: the gateway's `url`, `headers`
with token and facts, and those of somebody whom policy refuses.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.array([[0.5, -1.25, 3.0], [1.0, 2.0, 4.0]], np.float32)


def request(model: str, *, binary_in: bool, binary_out: bool) -> InferRequest:
    tensor = InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary_in)
    output = RequestedOutput("y", parameters={"binary_data": binary_out})
    return InferRequest(model, [tensor], request_id="kserve-7", request_outputs=[output])


def told(output: InferOutput) -> list:
    return output.as_numpy().tolist()


async def main() -> None:
    asked = json.load(sys.stdin)
    url, headers, model = asked["url"], asked["headers"], "identity-fp32"
    found: dict = {"sent": X.tolist(), "inferred": []}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model ready"] = await client.is_model_ready(url, model, headers=headers)
        found["unknown ready"] = await client.is_model_ready(url, "nothing", headers=headers)
        for binary_in in (True, False):
            for binary_out in (True, False):
                body = request(model, binary_in=binary_in, binary_out=binary_out)
                more: dict = {}
                answer = await client.infer(
                    url, body, model_name=model, headers=dict(headers), response_headers=more
                )
                (output,) = answer.outputs
                found["inferred"].append(
                    {
                        "id": answer.id,
                        "model": answer.model_name,
                        "parameters": answer.parameters,
                        "record": more["bedside-record"],
                        "binary": "inference-header-content-length" in more,
                        "data": told(output),
                    }
                )
        try:
            body = request(model, binary_in=True, binary_out=True)
            await client.infer(url, body, model_name=model, headers=asked["refused"])
        except httpx.HTTPStatusError as error:
            found["refused"] = {"status": error.response.status_code, "message": str(error)}
    json.dump(found, sys.stdout)


asyncio.run(main())
