"""Servers that give other outputs under the same version: what was read of them is read again.

Seen to fail: with metadata kept for as long as a model is ready, every answer was another datatype than
expected until the gateway was started again.
"""

import time
from contextlib import contextmanager

import pytest
from support import GatewayProcess, call, make_site
from support.sites import ROW
from support.stub_nodes import answers, stub_node

from inference_node import NodeClient, NodeError
from secure_gateway import nodes as nodes_module
from secure_gateway.exchange import ModelInfo
from secure_gateway.nodes import RemoteNode

PATIENCE_S = 20


@contextmanager
def gateway_before(tmp_path, node):
    site = make_site(tmp_path, gateway={"nodes": [node.entry("changing")]})
    with GatewayProcess(site, tmp_path) as gateway:
        yield gateway


def ask(gateway):
    return call("POST", gateway.infer_url, token=gateway.token(), body=ROW)


def asked_until(gateway, status):
    """Ask until the answer has `status`; return what the others had."""
    others, end = set(), time.monotonic() + PATIENCE_S
    while (reply := ask(gateway)).status != status:
        others.add(reply.status)
        assert time.monotonic() < end, others
        time.sleep(0.05)
    return others


def test_what_a_node_gives_is_read_again_after_its_answer_did_not_fit(tmp_path):
    with stub_node(answers, None) as node, gateway_before(tmp_path, node) as gateway:
        assert ask(gateway).json["outputs"][0]["datatype"] == "FP32"
        node.datatype = "FP64"
        # Not believed at first: nothing says yet that this is what the model gives.
        assert asked_until(gateway, 200) == {502}
        assert ask(gateway).json["outputs"][0]["datatype"] == "FP64"


def test_what_a_node_gives_is_read_again_after_it_was_away(tmp_path):
    with stub_node(answers, None) as node, gateway_before(tmp_path, node) as gateway:
        assert ask(gateway).status == 200
        node.answering = False
        asked_until(gateway, 503)
        node.datatype, node.answering = "FP64", True
        assert asked_until(gateway, 200) <= {503}
        assert ask(gateway).json["outputs"][0]["datatype"] == "FP64"


@pytest.mark.parametrize("digest", [None, "0" * 64])
async def test_models_without_a_digest_are_read_again_now_and_then(monkeypatch, digest):
    with stub_node(answers, digest) as stub:
        node = RemoteNode(stub.entry("one").candidate, NodeClient(stub.url), timeout_s=5)
        model = ModelInfo("breast-cancer", "1", digest)
        for _ in range(3):
            assert await node.probe() == (model,)
        assert stub.described == 1
        monkeypatch.setattr(nodes_module, "DESCRIBED_FOR_S", 0.0)
        for _ in range(3):
            assert await node.probe() == (model,)
        assert stub.described == (4 if digest is None else 1)
        # Whoever was away may be another, whatever it names.
        stub.answering = False
        with pytest.raises(NodeError):
            await node.probe()
        stub.answering = True
        before = stub.described
        await node.probe()
        assert stub.described == before + 1
        await node.close()
