"""Models that give their inputs as outputs, declared to be distributions, and questions to them."""

import contextlib

import numpy as np

from inference_node import InferRequest, Node, NodeSettings, RequestedOutput, Tensor
from support.models import identity_model


def entry(name, text):
    return f'parameters {{ key: "distribution.{name}" value {{ string_value: "{text}" }} }}\n'


@contextlib.asynccontextmanager
async def serving(folder, *declarations, config="", **outputs):
    identity_model(folder / "forecast/1/model.onnx", **(outputs or {"y": 2, "draws": 5}))
    (folder / "forecast/config.pbtxt").write_text(config + "".join(declarations))
    node = Node(NodeSettings(repository=folder))
    await node.start()
    try:
        yield node
    finally:
        await node.close()


NORMAL = entry("glucose", "normal loc=y[0] scale=y[1]")
SAMPLES = entry("draws", "samples draws=draws axis=1")


def rows(*values):
    x = np.array(values, np.float32)
    return [Tensor(name="x", datatype="FP32", shape=x.shape, array=x)]


ONE = rows([100, 15, 1, 2, 3, 4, 5])


async def ask(node, *outputs, inputs=ONE, **parameters):
    requested = [
        output if isinstance(output, RequestedOutput) else RequestedOutput(name=output)
        for output in outputs
    ]
    request = InferRequest(inputs=inputs, outputs=requested, parameters=parameters)
    response = await node.infer("forecast", None, request)
    assert all(tensor.shape == tensor.array.shape for tensor in response.outputs)
    return {tensor.name: tensor.array for tensor in response.outputs}
