"""A model whose file is replaced while it serves: each record names the file that answered.

Seen to fail: with the digest that the gateway expects not sent, or not looked at by the node; with what
the node serves instead not asked for, when callers get 503.
"""

import contextlib
import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import GatewayProcess, call, make_site, records_of
from support.crowd import Crowd
from support.nodes import NodeProcess

from audit.records import Action, Outcome
from bedside.config import EXAMPLE_ACCESS
from inference_node import InferRequest, ModelReplaced, Node, NodeSettings, Tensor
from policies import Role
from secure_gateway import NodeEntry

KEPT = {"Bedside-Data-Class": "synthetic"}


def write_model(repository, answer):
    """Write version 1 of `m`, which answers `answer` whatever it is asked; return its digest."""
    shape = ["rows", 1]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "nothing"], ["z"]), helper.make_node("Add", ["z", "c"], ["y"])],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.float32(0), "nothing"),
            numpy_helper.from_array(np.float32(answer), "c"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path = repository / "m/1/model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    onnx.checker.check_model(model)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def question(value=0.5):
    return {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}


class Served:
    """A gateway before one node of its own process, whose model can be replaced."""

    def __init__(self, gateway, node, repository):
        self.gateway, self.node, self.repository = gateway, node, repository
        self.operator = gateway.token("op.one", Role.OPERATOR)
        self.clinician = gateway.token()
        self.digests = {}

    def replace(self, answer):
        self.digests[answer] = write_model(self.repository, answer)

    def load(self, url, token):
        reply = call("POST", f"{url}/v2/repository/models/m/load", token=token)
        assert reply.status == 200, reply.body

    def load_through_the_gateway(self):
        self.load(self.gateway.url, self.operator)

    def load_at_the_node(self):
        self.load(self.node.url, None)

    def ask(self, value=0.5, path="infer"):
        url = f"{self.gateway.url}/v2/models/m/{path}"
        return call("POST", url, token=self.clinician, body=question(value), headers=KEPT)


@contextlib.contextmanager
def serving(tmp_path, **gateway):
    repository = tmp_path / "models"
    digest = write_model(repository, 1)
    settings = {
        "node": NodeSettings(repository=repository, max_batch_size=4),
        "models": {"m": EXAMPLE_ACCESS},
    }
    with NodeProcess(make_site(tmp_path, **settings), tmp_path, "one") as node:
        entry = NodeEntry(id="one", jurisdiction="US-CA", url=node.url)
        site = make_site(tmp_path, gateway={"nodes": [entry], **gateway}, **settings)
        with GatewayProcess(site, tmp_path) as gateway_process:
            served = Served(gateway_process, node, repository)
            served.digests[1] = digest
            yield served


@pytest.mark.parametrize("where", ["gateway", "node"])
def test_each_record_names_the_file_that_answered_under_load(tmp_path, where):
    with serving(tmp_path) as served:
        load = served.load_through_the_gateway if where == "gateway" else served.load_at_the_node
        answers = {}

        def answered(reply, body):
            record = int(reply.headers["bedside-record"].rpartition("#")[2])
            answers[record] = body["outputs"][0]["data"][0]

        url = f"{served.gateway.url}/v2/models/m/infer"
        with Crowd(url, served.clinician, question(), answered=answered) as callers:
            for answer in range(2, 8):
                callers.wait_for(100)
                served.replace(answer)
                load()
            callers.wait_for(100)
        served.gateway.stop()
        records = records_of(served.gateway.site)
    assert set(callers.statuses) == {200}
    assert set(answers.values()) == set(map(float, served.digests))
    wrong = [
        number
        for number, answer in answers.items()
        if records[number].model_digest != served.digests[int(answer)]
    ]
    assert not wrong, f"{len(wrong)} of {len(answers)}"


def test_the_cache_keeps_no_answer_under_another_files_digest(tmp_path):
    with serving(tmp_path, cache={"enabled": True}) as served:
        served.replace(2)
        served.load_at_the_node()
        # Asked before the gateway looks at the node again.
        assert [served.ask(value).json["outputs"][0]["data"] for value in (0.5, 0.6)] == [[2], [2]]
        served.replace(1)
        served.load_through_the_gateway()
        again = served.ask()
        assert again.json["outputs"][0]["data"] == [1]
        assert "bedside_from_cache" not in again.json["parameters"]


def test_streams_and_their_records_are_of_the_file_that_answered(tmp_path):
    with serving(tmp_path) as served:
        served.replace(2)
        served.load_at_the_node()
        reply = served.ask(path="infer_stream")
        assert reply.status == 200
        assert b'"data":[2.0]' in reply.body
        served.gateway.stop()
        (opened, ended) = [
            record
            for record in records_of(served.gateway.site)
            if record.action in (Action.STREAM, Action.STREAM_END)
        ]
    assert opened.model_digest == served.digests[2]
    assert ended.outcome is Outcome.SERVED


async def test_a_node_runs_no_other_file_than_the_one_that_is_expected(tmp_path):
    digest = write_model(tmp_path, 1)
    node = Node(NodeSettings(repository=tmp_path))
    await node.start()
    x = Tensor(name="x", datatype="FP32", shape=(1, 1), array=np.ones((1, 1), np.float32))
    request = InferRequest(inputs=[x])
    assert (await node.infer("m", None, request, digest=digest)).outputs
    assert [r async for r in node.stream("m", None, request, digest=digest)]
    for other in ("0" * 64, ""):
        with pytest.raises(ModelReplaced):
            await node.infer("m", "1", request, digest=other)
        with pytest.raises(ModelReplaced):
            await anext(node.stream("m", "1", request, digest=other))
    await node.close()
