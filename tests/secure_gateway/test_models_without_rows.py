"""A model that does not batch, through a live gateway: of an embedded node, and of one behind it.

Seen to fail: with a gateway that compares the rows of what it sends to a node of its own.
"""

from contextlib import ExitStack

import pytest
from onnx import helper
from support import GatewayProcess, call, make_site, records_of
from support.nodes import NodeProcess
from support.served_models import write_model

from bedside.config import EXAMPLE_ACCESS
from inference_node import NodeSettings
from secure_gateway import NodeEntry


@pytest.fixture(scope="module", params=["embedded", "remote"])
def gateway(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    nodes = [
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("MatMul", ["q", "t"], ["scores"]),
    ]
    inputs, outputs = {"q": ["queries", 2], "d": ["documents", 2]}, {"scores": ["queries", "documents"]}
    write_model(folder / "models", nodes, inputs, outputs)
    settings = NodeSettings(repository=folder / "models")
    with ExitStack() as stack:
        entries = ()
        if request.param == "remote":
            beside = stack.enter_context(NodeProcess(make_site(folder, node=settings), folder, "us-1"))
            entries = (NodeEntry(id="us-1", jurisdiction="US-CA", url=beside.url),)
        models = {"m": EXAMPLE_ACCESS}
        site = make_site(folder, node=settings, models=models, gateway={"nodes": entries})
        yield stack.enter_context(GatewayProcess(site, folder))


def tensor(name, rows):
    return {"name": name, "datatype": "FP32", "shape": [rows, 2], "data": [1.0] * (2 * rows)}


def test_its_inputs_may_differ_in_length_and_the_record_holds_the_first_ones(gateway):
    url = f"{gateway.url}/v2/models/m/infer"
    body = {"inputs": [tensor("q", 3), tensor("d", 4)]}
    reply = call("POST", url, token=gateway.token(), body=body)
    assert (reply.status, reply.json["outputs"][0]["shape"]) == (200, [3, 4])
    gateway.stop()
    assert records_of(gateway.site)[-1].rows == 3
