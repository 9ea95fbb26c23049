import asyncio
import contextlib
import json
import socket

import numpy as np
import pytest
from support import call, linear_model
from support.models import stepping_model
from support.sites import ROW
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from bedside.http_protocol import WholeResponseProtocol
from bedside.listen import listen_tcp, listen_unix, url_of
from bedside.serving import serve_node
from inference_node import (
    InferRequest,
    InputInvalid,
    ModelUnknown,
    Node,
    NodeClient,
    NodeSettings,
    NodeUnreachable,
    Tensor,
)

SECRET = "between-gateway-and-node"


@contextlib.asynccontextmanager
async def serving(folder, listener, *, secret=SECRET, **settings):
    linear_model(folder / "sepsis/1/model.onnx")
    stop, ready = asyncio.Event(), asyncio.Event()
    node = Node(NodeSettings(repository=folder, **settings))
    task = asyncio.create_task(serve_node(node, listener, stop, ready.set, secret=secret))
    await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when="FIRST_COMPLETED")
    try:
        yield
    finally:
        stop.set()
        await task


def tensors():
    x = np.ones((2, 3), dtype=np.float32)
    return InferRequest(inputs=[Tensor(name="x", datatype="FP32", shape=(2, 3), array=x)])


@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_a_gateway_reaches_it_over_tcp_and_unix_sockets(tmp_path, transport):
    if transport == "tcp":
        listener = listen_tcp("127.0.0.1", 0)
        url = url_of(listener)
    else:
        listener = listen_unix(tmp_path / "node.sock")
        url = f"unix:{tmp_path / 'node.sock'}"
    async with serving(tmp_path, listener):
        client = NodeClient(url, secret=SECRET)
        answer = await client.infer("sepsis", None, tensors(), timeout_s=10)
        assert answer.outputs[0].shape == (2, 2)
        assert [entry.state for entry in await client.index()] == ["READY"]
        assert (await client.metadata("sepsis", None)).inputs[0].shape == (-1, 3)
        with pytest.raises(ModelUnknown):
            await client.infer("nothing", None, tensors(), timeout_s=10)
        bad = InferRequest(
            inputs=[Tensor(name="x", datatype="FP32", shape=(1,), array=np.ones(1, np.float32))]
        )
        with pytest.raises(InputInvalid):
            await client.infer("sepsis", None, bad, timeout_s=10)
        await client.close()


async def test_a_node_that_is_not_there_is_unreachable():
    listener = listen_tcp("127.0.0.1", 0)
    url = url_of(listener)
    listener.close()
    client = NodeClient(url)
    with pytest.raises(NodeUnreachable):
        await client.infer("sepsis", None, tensors(), timeout_s=10)
    await client.close()


async def test_only_who_has_the_secret_may_call(tmp_path):
    listener = listen_tcp("127.0.0.1", 0)
    url = url_of(listener)
    async with serving(tmp_path, listener):
        index = f"{url}/v2/repository/index"
        assert (await asyncio.to_thread(call, "POST", index)).status == 401
        assert (await asyncio.to_thread(call, "POST", index, token="wrong")).status == 401
        assert (await asyncio.to_thread(call, "POST", index, token=SECRET)).status == 200
        assert (await asyncio.to_thread(call, "GET", f"{url}/v2/health/live")).status == 200


async def test_tritonclient_works_unchanged(tmp_path):
    listener = listen_tcp("127.0.0.1", 0)
    address = url_of(listener).removeprefix("http://")

    def use():
        with InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert client.is_model_ready("sepsis")
            assert client.get_model_metadata("sepsis")["platform"] == "onnxruntime_onnx"
            tensor = InferInput("x", [1, 3], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 3), dtype=np.float32))
            assert client.infer("sepsis", [tensor]).as_numpy("y").shape == (1, 2)
            with pytest.raises(InferenceServerException, match="no such model"):
                client.infer("nothing", [tensor])

    async with serving(tmp_path, listener, secret=None):
        await asyncio.to_thread(use)


async def test_an_oversized_body_is_refused(tmp_path):
    listener = listen_tcp("127.0.0.1", 0)
    url = f"{url_of(listener)}/v2/models/sepsis/infer"
    async with serving(tmp_path, listener, secret=None, body_limit_bytes=2000):
        reply = await asyncio.to_thread(call, "POST", url, body=b" " * 3000)
        assert reply.status == 413
        assert "2000" in reply.json["error"]


async def test_who_does_not_read_a_stream_is_cut_off_in_the_time_that_is_set(tmp_path, monkeypatch):
    """Seen to fail: with the time that is set for nodes left unused."""
    stepping_model(tmp_path, steps=100_000)
    listener = listen_tcp("127.0.0.1", 0)
    body = json.dumps(ROW).encode()
    cut_off = asyncio.Event()
    lost = WholeResponseProtocol.connection_lost

    def told(self, exc):
        lost(self, exc)
        cut_off.set()

    monkeypatch.setattr(WholeResponseProtocol, "connection_lost", told)
    async with serving(tmp_path, listener, unread_timeout_s=0.5):
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(listener.getsockname())
            reader.sendall(
                b"POST /v2/models/halving/infer_stream HTTP/1.1\r\nHost: x\r\n"
                b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
                % (SECRET.encode(), len(body), body)
            )
            await asyncio.wait_for(cut_off.wait(), 10)
